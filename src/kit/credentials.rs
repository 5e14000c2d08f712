//! A certificate chain, its key and the authorities to trust: parsed, checked against each other, with a lifetime.
//! Pure but for reading the key material it is given; the key is never printed.

use std::{
    fmt,
    time::{Duration, SystemTime},
};

use rustls::{RootCertStore, crypto::aws_lc_rs, sign::CertifiedKey};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
use x509_parser::prelude::{FromDer as _, GeneralName, X509Certificate};

use super::KitError;

/// What one side of a TLS connection shows and trusts.
#[derive(Clone)]
pub struct Credentials {
    pub(super) identity: std::sync::Arc<CertifiedKey>,
    pub(super) authorities: std::sync::Arc<RootCertStore>,
    lifetime: Lifetime,
}

/// When a certificate is valid, by the wall clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lifetime {
    pub from: SystemTime,
    pub until: SystemTime,
}

impl Credentials {
    /// From PEM texts: the chain with the leaf first, its private key, the authorities to trust (none is allowed,
    /// then nobody is). Fails where key and leaf do not belong together.
    pub fn from_pem(chain: &[u8], key: &[u8], authorities: &[u8]) -> Result<Self, KitError> {
        let chain = certificates(chain, "certificate")?;
        let leaf = chain.first().ok_or_else(|| broken("certificate", "no PEM certificate in it"))?;
        let lifetime = Lifetime::of(leaf)?;
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| broken("private key", error))?;
        let identity = CertifiedKey::from_der(chain, key, &aws_lc_rs::default_provider())
            .map_err(|error| broken("certificate and key", error))?;
        Ok(Self { identity: identity.into(), authorities: root_store(authorities)?.into(), lifetime })
    }

    pub fn lifetime(&self) -> Lifetime {
        self.lifetime
    }

    /// True if the same leaf is shown and the same authorities are trusted.
    pub fn same_as(&self, other: &Self) -> bool {
        self.identity.cert == other.identity.cert && self.authorities.roots == other.authorities.roots
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { identity: _, authorities, lifetime } = self; // the key must not reach a log
        f.debug_struct("Credentials")
            .field("authorities", &authorities.len())
            .field("lifetime", lifetime)
            .finish_non_exhaustive()
    }
}

impl Lifetime {
    fn of(certificate: &CertificateDer<'_>) -> Result<Self, KitError> {
        let (_, parsed) =
            X509Certificate::from_der(certificate).map_err(|error| broken("certificate", error))?;
        let time = |at: x509_parser::time::ASN1Time| {
            let since_epoch = Duration::from_secs(u64::try_from(at.timestamp()).unwrap_or(0));
            SystemTime::UNIX_EPOCH + since_epoch
        };
        let validity = parsed.validity();
        Ok(Self { from: time(validity.not_before), until: time(validity.not_after) })
    }

    /// Of the first certificate in a PEM text.
    pub fn of_pem(pem: &[u8]) -> Result<Self, KitError> {
        let leaf = CertificateDer::from_pem_slice(pem).map_err(|error| broken("certificate", error))?;
        Self::of(&leaf)
    }

    /// Two thirds of the life are over: time for a new certificate, a third is left to get it.
    pub fn renewal_due(&self, now: SystemTime) -> bool {
        now >= self.renew_at()
    }

    pub fn renew_at(&self) -> SystemTime {
        self.from + self.until.duration_since(self.from).unwrap_or_default() * 2 / 3
    }
}

/// First DNS name among the subject's alternative names: who the bearer is.
pub(super) fn dns_name(certificate: &CertificateDer<'_>) -> Option<String> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    let names = parsed.subject_alternative_name().ok()??;
    names.value.general_names.iter().find_map(|name| match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        _ => None,
    })
}

/// The authorities of a PEM text as a store of roots; a text without any gives an empty store.
pub fn root_store(pem: &[u8]) -> Result<RootCertStore, KitError> {
    let mut store = RootCertStore::empty();
    for authority in certificates(pem, "authority")? {
        store.add(authority).map_err(|error| broken("authority", error))?;
    }
    Ok(store)
}

fn certificates(pem: &[u8], subject: &'static str) -> Result<Vec<CertificateDer<'static>>, KitError> {
    CertificateDer::pem_slice_iter(pem).collect::<Result<_, _>>().map_err(|error| broken(subject, error))
}

fn broken(subject: &'static str, problem: impl ToString) -> KitError {
    KitError::Credentials { subject, problem: problem.to_string() }
}
