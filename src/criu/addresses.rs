//! Which addresses a network namespace has, and which of the source's becomes which of the new pod's. Pure.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Scope of an IPv6 address that is the host's own, in `if_inet6`.
const SCOPE_HOST: &str = "10";

/// All addresses of a namespace but loopback ones, from the text of its `/proc/net/fib_trie` and `/proc/net/if_inet6`.
/// Lines that say something else are passed over.
pub fn of_namespace(fib_trie: &str, if_inet6: &str) -> Vec<IpAddr> {
    let mut found = BTreeSet::new();
    let mut leaf: Option<Ipv4Addr> = None;
    for line in fib_trie.lines().map(str::trim_start) {
        if let Some(address) = line.strip_prefix("|-- ") {
            leaf = address.trim().parse().ok();
        } else if line.starts_with("/32 host LOCAL")
            && let Some(address) = leaf.filter(|address| !address.is_loopback())
        {
            found.insert(IpAddr::V4(address));
        }
    }
    for line in if_inet6.lines() {
        let mut words = line.split_whitespace();
        let (Some(address), Some(scope)) = (words.next(), words.nth(2)) else { continue };
        // The first digit is read by `from_str_radix` as a sign, were it one.
        let is_hex = address.len() == 32 && address.bytes().all(|digit| digit.is_ascii_hexdigit());
        if let Some(address) =
            u128::from_str_radix(address, 16).ok().filter(|_| is_hex && scope != SCOPE_HOST)
        {
            found.insert(IpAddr::V6(Ipv6Addr::from(address)));
        }
    }
    found.into_iter().collect()
}

/// What becomes of the source's addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Moves {
    pairs: Vec<(IpAddr, IpAddr)>,
}

/// Addresses that can stand for each other.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    V4,
    V6,
    /// IPv6 that counts on one link only.
    V6Link,
}

impl Kind {
    fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(address) if address.is_unicast_link_local() => Self::V6Link,
            IpAddr::V6(_) => Self::V6,
        }
    }
}

/// Those of the namespace's addresses of which it could not be told which one `address` becomes, for there is more than
/// itself of its kind.
pub fn alternatives(of_namespace: &[IpAddr], address: IpAddr) -> Vec<IpAddr> {
    let kind = Kind::of(address);
    let alike: Vec<_> = of_namespace.iter().copied().filter(|other| Kind::of(*other) == kind).collect();
    if alike.len() > 1 && alike.contains(&address) { alike } else { Vec::new() }
}

impl Moves {
    /// The one address of a kind that the source had and the new pod has not becomes the one that only the new pod has.
    /// Where there are several it cannot be told which is which: they stay, and a socket that is bound to one of them
    /// cannot be restored.
    pub fn between(old: &[IpAddr], new: &[IpAddr]) -> Self {
        let only = |of: &[IpAddr], without: &[IpAddr], kind: Kind| -> Option<IpAddr> {
            let mut left = of.iter().filter(|a| Kind::of(**a) == kind && !without.contains(a));
            let one = left.next().copied()?;
            left.all(|other| *other == one).then_some(one)
        };
        let pairs = [Kind::V4, Kind::V6, Kind::V6Link]
            .into_iter()
            .filter_map(|kind| Some((only(old, new, kind)?, only(new, old, kind)?)));
        Self { pairs: pairs.collect() }
    }

    pub fn is_empty(&self) -> bool {
        self.pairs.is_empty()
    }

    /// What `address` becomes, if it does not stay.
    pub fn of(&self, address: IpAddr) -> Option<IpAddr> {
        self.pairs.iter().find(|(old, _)| *old == address).map(|(_, new)| *new)
    }
}
