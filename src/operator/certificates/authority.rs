//! The authority itself: its certificates and keys, what it signs, how one follows another. Pure.
//!
//! A successor is published long before it signs anything, and the predecessor stays trusted until the last
//! certificate it signed has expired.

use std::{
    collections::BTreeMap,
    fmt,
    time::{Duration, SystemTime},
};

use k8s_openapi::ByteString;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DnType, ExtendedKeyUsagePurpose,
    IsCa, Issuer, KeyPair, KeyUsagePurpose, date_time_ymd,
};

use super::{CertificateError, PEER_LIFE, WEBHOOK_LIFE};
use crate::kit::tls::Lifetime;

pub(super) const SECRET: &str = "shadow-ca";

const AUTHORITY_LIFE: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
/// How long a successor is published before it signs: volumes and caches have it everywhere by then.
const PUBLISHED_BEFORE_USE: Duration = Duration::from_secs(24 * 3600);
/// Clocks of nodes may differ by this much.
const SKEW: Duration = Duration::from_secs(300);

/// Signs certificates; may have a successor that is published already, and a predecessor that is still trusted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Authority {
    active: Root,
    next: Option<Root>,
    previous: Option<String>,
}

#[derive(Clone, PartialEq, Eq)]
struct Root {
    certificate: String,
    key: String,
    lifetime: Lifetime,
}

/// A certificate with its key, both PEM.
#[derive(Clone)]
pub struct Issued {
    pub certificate: String,
    pub key: String,
}

impl Authority {
    /// A new one, valid from now.
    pub fn found(now: SystemTime) -> Result<Self, CertificateError> {
        Ok(Self { active: Root::found(now)?, next: None, previous: None })
    }

    /// As kept in the Secret `shadow-ca`.
    pub fn from_data(data: &BTreeMap<String, ByteString>) -> Result<Self, CertificateError> {
        let next = if data.contains_key("next.crt") {
            Some(Root::from_data(data, "next.crt", "next.key")?)
        } else {
            None
        };
        let previous = data.contains_key("previous.crt").then(|| text(data, "previous.crt")).transpose()?;
        Ok(Self { active: Root::from_data(data, "tls.crt", "tls.key")?, next, previous })
    }

    pub fn to_data(&self) -> BTreeMap<String, ByteString> {
        let Self { active, next, previous } = self;
        let mut data = BTreeMap::new();
        let mut put = |key: &str, value: &str| data.insert(key.to_owned(), ByteString(value.into()));
        put("tls.crt", &active.certificate);
        put("tls.key", &active.key);
        if let Some(next) = next {
            put("next.crt", &next.certificate);
            put("next.key", &next.key);
        }
        if let Some(previous) = previous {
            put("previous.crt", previous);
        }
        data
    }

    /// All that is to be trusted, PEM.
    pub fn bundle(&self) -> String {
        let Self { active, next, previous } = self;
        let mut bundle = active.certificate.clone();
        for certificate in next.iter().map(|next| &next.certificate).chain(previous) {
            bundle.push_str(certificate);
        }
        bundle
    }

    /// The certificate that signs now, PEM.
    pub fn active(&self) -> &str {
        &self.active.certificate
    }

    /// A certificate with a fresh key for servers and clients called `names`.
    pub fn issue(
        &self,
        names: &[String],
        life: Duration,
        now: SystemTime,
    ) -> Result<Issued, CertificateError> {
        let key = KeyPair::generate()?;
        let certificate = leaf(names, life, now)?.signed_by(&key, &self.active.issuer()?)?;
        Ok(Issued { certificate: certificate.pem(), key: key.serialize_pem() })
    }

    /// A certificate called `name` for the key in a signing request. Of the request only the key is used, and the
    /// proof that the sender has it; what it asks to be called is not looked at.
    pub fn sign(&self, csr: &str, name: &str, now: SystemTime) -> Result<String, CertificateError> {
        let request = CertificateSigningRequestParams::from_pem(csr)?;
        let params = leaf(&[name.to_owned()], PEER_LIFE, now)?;
        Ok(params.signed_by(&request.public_key, &self.active.issuer()?)?.pem())
    }

    /// What the passing of time makes of it; `None`: nothing.
    pub fn advanced(&self, now: SystemTime) -> Result<Option<Self>, CertificateError> {
        let Self { active, next, previous } = self;
        let advanced = match next {
            Some(next)
                if now >= next.lifetime.from + PUBLISHED_BEFORE_USE || now >= active.lifetime.until =>
            {
                let previous = Some(active.certificate.clone());
                Self { active: next.clone(), next: None, previous }
            }
            Some(_) => return Ok(None),
            None if active.lifetime.renewal_due(now) => {
                Self { active: active.clone(), next: Some(Root::found(now)?), previous: previous.clone() }
            }
            None if previous.is_some()
                && now >= active.lifetime.from + PUBLISHED_BEFORE_USE + WEBHOOK_LIFE =>
            {
                Self { active: active.clone(), next: None, previous: None }
            }
            None => return Ok(None),
        };
        Ok(Some(advanced))
    }
}

impl Root {
    fn found(now: SystemTime) -> Result<Self, CertificateError> {
        let key = KeyPair::generate()?;
        let mut params = params(AUTHORITY_LIFE, now, "SHADOW authority")?;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        Self::new(params.self_signed(&key)?.pem(), key.serialize_pem())
    }

    fn new(certificate: String, key: String) -> Result<Self, CertificateError> {
        let lifetime = Lifetime::of_pem(certificate.as_bytes())?;
        let root = Self { certificate, key, lifetime };
        root.issuer()?; // a key that cannot sign is better noticed now
        Ok(root)
    }

    fn from_data(
        data: &BTreeMap<String, ByteString>,
        certificate: &str,
        key: &str,
    ) -> Result<Self, CertificateError> {
        Self::new(text(data, certificate)?, text(data, key)?)
    }

    fn issuer(&self) -> Result<Issuer<'static, KeyPair>, CertificateError> {
        Ok(Issuer::from_ca_cert_pem(&self.certificate, KeyPair::from_pem(&self.key)?)?)
    }
}

impl fmt::Debug for Root {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Root").field("lifetime", &self.lifetime).finish_non_exhaustive()
    }
}

fn leaf(names: &[String], life: Duration, now: SystemTime) -> Result<CertificateParams, CertificateError> {
    let mut params = params(life, now, names.first().map_or("SHADOW", String::as_str))?;
    params.subject_alt_names = CertificateParams::new(names)?.subject_alt_names;
    params.use_authority_key_identifier_extension = true;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    Ok(params)
}

fn params(life: Duration, now: SystemTime, name: &str) -> Result<CertificateParams, CertificateError> {
    let since_epoch = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let epoch = date_time_ymd(1970, 1, 1);
    let mut params = CertificateParams::new(Vec::new())?;
    params.not_before = epoch + since_epoch.saturating_sub(SKEW);
    params.not_after = epoch + since_epoch + life;
    // At most 64 characters: X.520's limit for common names, which some verifiers enforce.
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name.chars().take(64).collect::<String>());
    Ok(params)
}

fn text(data: &BTreeMap<String, ByteString>, key: &str) -> Result<String, CertificateError> {
    let problem = |problem: String| CertificateError::Secret { name: SECRET, problem };
    let bytes = data.get(key).ok_or_else(|| problem(format!("key `{key}` is missing")))?;
    String::from_utf8(bytes.0.clone()).map_err(|_| problem(format!("key `{key}` is no PEM text")))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(24 * 3600);

    #[test]
    fn what_is_kept_in_the_secret_reads_back_as_the_same_authority() {
        let now = SystemTime::now();
        let mut authority = Authority::found(now).unwrap();
        authority.next = Some(Root::found(now).unwrap());
        authority.previous = Some(authority.active.certificate.clone());
        assert_eq!(Authority::from_data(&authority.to_data()).unwrap(), authority);
    }

    #[test]
    fn a_secret_without_a_key_says_what_is_missing() {
        let mut data = Authority::found(SystemTime::now()).unwrap().to_data();
        data.remove("tls.key");
        let error = Authority::from_data(&data).unwrap_err().to_string();
        assert!(error.contains("shadow-ca") && error.contains("tls.key"), "{error}");
    }

    #[test]
    fn a_successor_is_published_before_it_signs_and_the_predecessor_trusted_until_its_last_certificate_ends()
    {
        let begin = SystemTime::now();
        let first = Authority::found(begin).unwrap();
        assert!(first.advanced(begin + DAY).unwrap().is_none());

        let due = first.active.lifetime.renew_at() + DAY;
        let published = first.advanced(due).unwrap().unwrap();
        assert_eq!(published.active(), first.active());
        assert!(published.bundle().matches("BEGIN").count() == 2);
        assert!(published.advanced(due + DAY / 2).unwrap().is_none());

        let promoted = published.advanced(due + DAY).unwrap().unwrap();
        assert_ne!(promoted.active(), first.active());
        assert!(promoted.bundle().contains(first.active()));
        assert!(promoted.advanced(due + DAY + WEBHOOK_LIFE - DAY).unwrap().is_none());

        let alone = promoted.advanced(due + DAY + WEBHOOK_LIFE).unwrap().unwrap();
        assert_eq!(alone.bundle(), promoted.active());
    }

    #[test]
    fn a_signing_request_decides_the_key_and_not_the_name() {
        let authority = Authority::found(SystemTime::now()).unwrap();
        let key = KeyPair::generate().unwrap();
        let wish = CertificateParams::new(vec!["operator.shadow.internal".to_owned()]).unwrap();
        let csr = wish.serialize_request(&key).unwrap().pem().unwrap();
        let certificate = authority.sign(&csr, "n1.agent.shadow.internal", SystemTime::now()).unwrap();
        let (_, pem) = x509_parser::pem::parse_x509_pem(certificate.as_bytes()).unwrap();
        let parsed = pem.parse_x509().unwrap();
        let names = format!("{:?}", parsed.subject_alternative_name().unwrap().unwrap().value);
        assert!(names.contains("n1.agent.shadow.internal") && !names.contains("operator"), "{names}");
        assert_eq!(parsed.public_key().subject_public_key.data, key.public_key_raw());
    }
}
