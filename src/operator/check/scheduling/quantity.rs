//! Kubernetes' quantities, exactly: `250m`, `1Gi`, `1.5`, `2e3`. In billionths, the smallest that there are.

use std::fmt;
use std::ops::Add;

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

const UNIT: i128 = 1_000_000_000;

/// An amount of some resource, in billionths of its unit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Amount(i128);

impl Amount {
    pub const ONE: Self = Self(UNIT);

    /// None if it is no quantity; the API server admits none of these.
    pub fn of(quantity: &Quantity) -> Option<Self> {
        let text = quantity.0.trim();
        let end = text.find(|c: char| !matches!(c, '0'..='9' | '.' | '+' | '-')).unwrap_or(text.len());
        let (number, suffix) = text.split_at(end);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        let digits: i128 = format!("{whole}{fraction}").parse().ok()?;
        let divisor = 10_i128.checked_pow(u32::try_from(fraction.len()).ok()?)?;
        let (factor, shrink) = factor(suffix)?;
        let divisor = divisor.checked_mul(shrink)?;
        let product = digits.checked_mul(factor)?;
        // What is smaller than the smallest counts as it.
        Some(Self(product.div_euclid(divisor) + i128::from(product.rem_euclid(divisor) != 0)))
    }

    /// In thousandths, rounded up, as Kubernetes writes it.
    pub fn quantity(self) -> Quantity {
        let thousandths = self.0.div_euclid(UNIT / 1000) + i128::from(self.0.rem_euclid(UNIT / 1000) != 0);
        Quantity(if thousandths % 1000 == 0 {
            (thousandths / 1000).to_string()
        } else {
            format!("{thousandths}m")
        })
    }

    #[must_use]
    pub fn saturating_sub(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0).max(0))
    }
}

/// What a number is multiplied with, and divided by, to be in billionths.
fn factor(suffix: &str) -> Option<(i128, i128)> {
    let thousands = |power| Some((UNIT * 1000_i128.pow(power), 1));
    let kibis = |power| Some((UNIT << (10 * power), 1));
    match suffix {
        "n" => Some((1, 1)),
        "u" => Some((1_000, 1)),
        "m" => Some((1_000_000, 1)),
        "" => thousands(0),
        "k" => thousands(1),
        "M" => thousands(2),
        "G" => thousands(3),
        "T" => thousands(4),
        "P" => thousands(5),
        "E" => thousands(6),
        "Ki" => kibis(1),
        "Mi" => kibis(2),
        "Gi" => kibis(3),
        "Ti" => kibis(4),
        "Pi" => kibis(5),
        "Ei" => kibis(6),
        _ => {
            let exponent: i32 = suffix.strip_prefix(['e', 'E'])?.parse().ok()?;
            let power = 10_i128.checked_pow(exponent.unsigned_abs())?;
            if exponent < 0 { Some((UNIT, power)) } else { Some((UNIT.checked_mul(power)?, 1)) }
        }
    }
}

impl Add for Amount {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }
}

/// `1.5`, `512 Mi`: as people would write it, cut off after a tenth of the large and a thousandth of the small.
impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, thousandths) = (self.0 / UNIT, self.0 % UNIT / (UNIT / 1000));
        for (shift, name) in [(30, "Gi"), (20, "Mi")] {
            if whole >> shift > 0 {
                let tenths = (whole * 10) >> shift;
                return write!(f, "{}.{} {name}", tenths / 10, tenths % 10);
            }
        }
        if thousandths == 0 { write!(f, "{whole}") } else { write!(f, "{whole}.{thousandths:03}") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn amount(text: &str) -> Option<Amount> {
        Amount::of(&Quantity(text.to_owned()))
    }

    #[test]
    fn different_notations_of_the_same_amount_are_equal() {
        let alike = [
            ["1", "1000m", "1.0", "1e0"],
            ["0.1", "100m", "100000u", "1e-1"],
            ["1Gi", "1024Mi", "1073741824", "1048576Ki"],
            ["2E", "2e18", "2000P", "2E18"],
            ["1.5k", "1500", "1.5e3", "+1.5E3"],
        ];
        for [first, others @ ..] in alike {
            for other in others {
                assert_eq!(amount(first), amount(other), "{first} and {other}");
            }
        }
        assert!(amount("1Gi") > amount("1G") && amount("7Ei") > amount("8E"));
        assert_eq!(amount("0.3").unwrap() + amount("600m").unwrap(), amount("0.9").unwrap());
    }

    #[test]
    fn what_is_no_quantity_is_none() {
        for text in ["", "m", "1x", "1.2.3", "1e", "--1", "1e99", "1e-99", "Gi"] {
            assert_eq!(amount(text), None, "{text:?}");
        }
    }

    #[test]
    fn it_is_shown_as_people_write_it() {
        for (text, shown) in [
            ("2", "2"),
            ("250m", "0.250"),
            ("1536Mi", "1.5 Gi"),
            ("70Mi", "70.0 Mi"),
            ("110", "110"),
            ("0", "0"),
        ] {
            assert_eq!(amount(text).unwrap().to_string(), shown);
        }
    }
}
