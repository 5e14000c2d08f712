//! What keeps a node from restoring what was dumped on another one, for people. Pure.

use std::collections::BTreeSet;
use std::fmt;

/// What differs, short enough for a list of a reason per node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Difference {
    Architecture { here: String, source: String },
    CpuVendor { here: String, source: String },
    CpuFeatures(Missing),
    XsaveSize { here: u32, source: u32 },
    XsaveSizeMax { here: u32, source: u32 },
    XsaveFeatures { here: String, source: String },
    OlderKernel { here: String, source: String },
    OlderCriu { here: String, source: String },
    OlderAgent { here: u32, source: u32 },
    CriuFeatures(Missing),
    RuntimeClass { here: String, source: String },
    OciRuntime { here: String, source: String },
    Engine { here: String, source: String },
    Cgroups { here: u8, source: u8 },
    CgroupNamespace { criu: String },
    SecurityModule { here: String, source: String },
    CriuConfig { here: String, source: String },
}

/// The first few of what is missing, and how many more there are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Missing {
    named: Vec<String>,
    more: usize,
}

/// How many of what is missing are named.
const NAMED: usize = 4;

impl Missing {
    /// `None` where nothing is missing.
    pub(super) fn of(source: &BTreeSet<String>, here: &BTreeSet<String>) -> Option<Self> {
        let mut missing = source.difference(here);
        let named: Vec<_> = missing.by_ref().take(NAMED).cloned().collect();
        (!named.is_empty()).then(|| Self { named, more: missing.count() })
    }
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.named.join(", "))?;
        match self.more {
            0 => Ok(()),
            more => write!(f, " and {more} more"),
        }
    }
}

fn or_none(name: &str) -> &str {
    if name.is_empty() { "none" } else { name }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Architecture { here, source } => write!(f, "architecture {here}, source {source}"),
            Self::CpuVendor { here, source } => write!(f, "CPU of {here}, source {source}"),
            Self::CpuFeatures(missing) => write!(f, "CPU lacks {missing}"),
            Self::CriuFeatures(missing) => write!(f, "CRIU lacks {missing}"),
            Self::XsaveSizeMax { here, source } => write!(f, "largest xsave size {here}, source {source}"),
            Self::RuntimeClass { here, source } => write!(f, "RuntimeClass {here:?}, source {source:?}"),
            Self::XsaveSize { here, source } => write!(f, "xsave size {here}, source {source}"),
            Self::XsaveFeatures { here, source } => write!(f, "xsave features {here}, source {source}"),
            Self::OlderKernel { here, source } => write!(f, "kernel {here}, source {source}"),
            Self::OlderCriu { here, source } => write!(f, "CRIU {here}, source {source}"),
            Self::OlderAgent { here, source } => {
                write!(f, "its agent is of an earlier version (format {here}, source {source})")
            }
            Self::OciRuntime { here, source } => write!(f, "OCI runtime {here}, source {source}"),
            Self::Engine { here, source } => write!(f, "engine {here}, source {source}"),
            Self::Cgroups { here, source } => write!(f, "cgroup v{here}, source v{source}"),
            Self::CgroupNamespace { criu } => {
                write!(f, "cgroup v2, and neither its runtime nor CRIU {criu} restores cgroup namespaces")
            }
            Self::SecurityModule { here, source } => {
                write!(f, "security module {}, source {}", or_none(here), or_none(source))
            }
            Self::CriuConfig { here, source } => {
                write!(f, "CRIU is configured otherwise ({here}, source {source})")
            }
        }
    }
}
