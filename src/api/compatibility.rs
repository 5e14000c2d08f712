//! What a node must have in common with another one, so that a container dumped there can be restored here. Pure.
//!
//! CRIU checks the CPU only if it is told to write `cpuinfo.img`, and runc and crun do not tell it: on a lesser CPU a
//! restore succeeds and the process dies later by SIGILL. So the check is made here, before anything is touched. The
//! rules are those of CRIU's `cpu_validate_features` (x86) and of its documentation.

use std::collections::BTreeSet;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::difference::{Difference, Missing};
use super::names::{
    LABEL_CGROUP_VERSION, LABEL_CPU_VENDOR, LABEL_CRIU_CONFIG, LABEL_ENGINE, LABEL_OCI_RUNTIME,
    LABEL_SECURITY_MODULE, LABEL_XSAVE_SIZE,
};

/// Counted up when a restore needs more than an earlier agent and its runtime do. 1: emptyDir volumes are filled, init
/// containers are completed. 2: several containers of a pod. 3: volumes that outlive the pod are written out before a dump
/// counts, and what has run on them is restored once.
pub const AGENT_FORMAT: u32 = 3;
/// From this one on emptyDir volumes and init containers are no obstacle.
pub const FORMAT_OF_INIT: u32 = 1;
/// From this one on several containers are none.
pub const FORMAT_OF_PODS: u32 = 2;
/// From this one on volumes that outlive the pod are none.
pub const FORMAT_OF_VOLUMES: u32 = 3;

/// A node as far as restoring matters.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Compatibility {
    /// As Go names it: `amd64`, `arm64`.
    pub architecture: String,
    /// `GenuineIntel`, `AuthenticAMD`.
    pub cpu_vendor: String,
    /// Instructions that a program may use, as `/proc/cpuinfo` names them.
    pub cpu_features: BTreeSet<String>,
    /// Bytes that the CPU saves of the features which the kernel has switched on: the C library has measured it at the
    /// start of the program and will not do so again.
    pub xsave_size: u32,
    /// Bytes that it would save of all features that the CPU has.
    #[serde(default)]
    pub xsave_size_max: u32,
    /// State components that the CPU saves, one bit each (XCR0), in hexadecimal.
    pub xsave_features: String,
    /// `uname -r`.
    pub kernel: String,
    /// `4.2`.
    pub criu: String,
    /// What its agent writes into archives, and does with those of others; see [`AGENT_FORMAT`]. 0 of earlier ones.
    #[serde(default)]
    pub agent_format: u32,
    /// What `criu check --feature` says yes to: what the kernel offers to CRIU.
    #[serde(default)]
    pub criu_features: BTreeSet<String>,
    /// The kernel tells which pages were written since they were last looked at (CRIU's `mem_dirty_track`). No restore
    /// needs it.
    #[serde(default)]
    pub soft_dirty: bool,
    /// `runc 1.4.3`: images of one OCI runtime are not another's.
    pub oci_runtime: String,
    /// `containerd 2.3.4`.
    pub engine: String,
    /// 1 or 2.
    pub cgroup_version: u8,
    /// Who makes the cgroups of pods: `systemd` or `cgroupfs`. It may be another one than the source's.
    #[serde(default)]
    pub cgroup_driver: String,
    /// Who gives a restored container its cgroup namespace back, which it has under cgroup v2.
    #[serde(default)]
    pub cgroup_namespace: CgroupNamespace,
    /// Short hash of CRIU's settings for runc.
    pub criu_config: String,
    /// RuntimeClass whose handler the engine knows.
    #[serde(default)]
    pub runtime_class: String,
    /// Whose labels processes have: `apparmor`, `selinux` or nobody's.
    #[serde(default)]
    pub security_module: String,
}

/// Who gives a restored container its cgroup namespace back. Without one it sees the cgroups of all pods of its node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum CgroupNamespace {
    /// Nobody: under cgroup v2 nothing is restored there.
    #[default]
    Lost,
    /// SHADOW's runtime, in CRIU's place.
    Runtime,
    /// CRIU itself.
    Criu,
}

impl Compatibility {
    /// Can a container that was dumped on `source` be restored here?
    pub fn admits(&self, source: &Self) -> Result<(), Difference> {
        let same = |here: &String, there: &String| here == there;
        let pair = |here: &String, source: &String| (here.clone(), source.clone());
        if !same(&self.architecture, &source.architecture) {
            let (here, source) = pair(&self.architecture, &source.architecture);
            return Err(Difference::Architecture { here, source });
        }
        if !same(&self.cpu_vendor, &source.cpu_vendor) {
            let (here, source) = pair(&self.cpu_vendor, &source.cpu_vendor);
            return Err(Difference::CpuVendor { here, source });
        }
        if let Some(missing) = Missing::of(&source.cpu_features, &self.cpu_features) {
            return Err(Difference::CpuFeatures(missing));
        }
        if self.xsave_size != source.xsave_size {
            return Err(Difference::XsaveSize { here: self.xsave_size, source: source.xsave_size });
        }
        if self.xsave_size_max != source.xsave_size_max {
            let (here, source) = (self.xsave_size_max, source.xsave_size_max);
            return Err(Difference::XsaveSizeMax { here, source });
        }
        if !has_bits(&self.xsave_features, &source.xsave_features) {
            let (here, source) = pair(&self.xsave_features, &source.xsave_features);
            return Err(Difference::XsaveFeatures { here, source });
        }
        if numbers(&self.kernel) < numbers(&source.kernel) {
            let (here, source) = pair(&self.kernel, &source.kernel);
            return Err(Difference::OlderKernel { here, source });
        }
        if numbers(&self.criu) < numbers(&source.criu) {
            let (here, source) = pair(&self.criu, &source.criu);
            return Err(Difference::OlderCriu { here, source });
        }
        if self.agent_format < source.agent_format {
            let (here, source) = (self.agent_format, source.agent_format);
            return Err(Difference::OlderAgent { here, source });
        }
        if let Some(missing) = Missing::of(&source.criu_features, &self.criu_features) {
            return Err(Difference::CriuFeatures(missing));
        }
        if !same(&self.runtime_class, &source.runtime_class) {
            let (here, source) = pair(&self.runtime_class, &source.runtime_class);
            return Err(Difference::RuntimeClass { here, source });
        }
        if !same(&name(&self.oci_runtime), &name(&source.oci_runtime)) {
            let (here, source) = pair(&self.oci_runtime, &source.oci_runtime);
            return Err(Difference::OciRuntime { here, source });
        }
        if !same(&name(&self.engine), &name(&source.engine)) {
            let (here, source) = pair(&self.engine, &source.engine);
            return Err(Difference::Engine { here, source });
        }
        if self.cgroup_version != source.cgroup_version {
            return Err(Difference::Cgroups { here: self.cgroup_version, source: source.cgroup_version });
        }
        if self.cgroup_version == 2 && self.cgroup_namespace == CgroupNamespace::Lost {
            return Err(Difference::CgroupNamespace { criu: self.criu.clone() });
        }
        // A label that the kernel here does not know cannot be restored, one that it expects would be missing.
        if !same(&self.security_module, &source.security_module) {
            let (here, source) = pair(&self.security_module, &source.security_module);
            return Err(Difference::SecurityModule { here, source });
        }
        if !same(&self.criu_config, &source.criu_config) {
            let (here, source) = pair(&self.criu_config, &source.criu_config);
            return Err(Difference::CriuConfig { here, source });
        }
        Ok(())
    }

    /// The facts that must be the same, as labels of the Node: filters in the scheduler, cluster autoscaler and
    /// Karpenter see these, none of which asks an extender.
    pub fn labels(&self) -> [(&'static str, String); 7] {
        [
            (LABEL_CPU_VENDOR, label_value(&self.cpu_vendor)),
            (LABEL_XSAVE_SIZE, self.xsave_size.to_string()),
            (LABEL_OCI_RUNTIME, label_value(&name(&self.oci_runtime))),
            (LABEL_ENGINE, label_value(&name(&self.engine))),
            (LABEL_CGROUP_VERSION, self.cgroup_version.to_string()),
            (LABEL_CRIU_CONFIG, label_value(&self.criu_config)),
            (LABEL_SECURITY_MODULE, label_value(&self.security_module)),
        ]
    }
}

/// What a label may hold of it.
fn label_value(text: &str) -> String {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let value: String = text.chars().filter(|c| allowed(*c)).take(63).collect();
    value.trim_matches(|c: char| !c.is_ascii_alphanumeric()).to_owned()
}

/// `runc` of `runc 1.4.3`.
fn name(versioned: &str) -> String {
    versioned.split(' ').next().unwrap_or_default().to_owned()
}

/// The leading numbers of a version: `6.1.0-45-amd64` is 6, 1, 0.
fn numbers(version: &str) -> Vec<u64> {
    let end = version.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(version.len());
    let mut numbers: Vec<u64> = version[..end].split('.').filter_map(|part| part.parse().ok()).collect();
    while numbers.last() == Some(&0) {
        numbers.pop(); // 4.2 is 4.2.0
    }
    numbers
}

/// All of the source's bits; what is not hexadecimal has only itself.
fn has_bits(here: &str, source: &str) -> bool {
    let bits = |text: &str| u64::from_str_radix(text.trim_start_matches("0x"), 16).ok();
    here == source || matches!((bits(here), bits(source)), (Some(here), Some(source)) if source & !here == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node() -> Compatibility {
        Compatibility {
            architecture: "amd64".into(),
            cpu_vendor: "GenuineIntel".into(),
            cpu_features: ["avx", "avx2", "fma"].map(str::to_owned).into(),
            xsave_size: 2440,
            xsave_size_max: 2696,
            xsave_features: "2e7".into(),
            kernel: "6.1.0-45-amd64".into(),
            criu: "4.2".into(),
            agent_format: 1,
            criu_features: ["pidfd_store", "timens"].map(str::to_owned).into(),
            soft_dirty: true,
            oci_runtime: "runc 1.4.3".into(),
            engine: "containerd 2.3.4".into(),
            cgroup_version: 2,
            cgroup_driver: "systemd".into(),
            cgroup_namespace: CgroupNamespace::Runtime,
            criu_config: "abcd".into(),
            runtime_class: "shadow".into(),
            security_module: "apparmor".into(),
        }
    }

    fn refused(change: impl FnOnce(&mut Compatibility)) -> String {
        let mut here = node();
        change(&mut here);
        here.admits(&node()).unwrap_err().to_string()
    }

    #[test]
    fn a_node_admits_its_like_and_the_better() {
        let mut better = node();
        better.cpu_features.insert("sha_ni".into());
        better.kernel = "6.12.9".into();
        better.criu = "4.2.1".into();
        better.oci_runtime = "runc 1.4.9".into();
        better.agent_format = 2;
        better.xsave_features = "602e7".into();
        better.cgroup_namespace = CgroupNamespace::Criu;
        assert_eq!(better.admits(&node()), Ok(()));
        assert_eq!(node().admits(&node()), Ok(()));
    }

    #[test]
    fn what_no_restore_needs_may_differ() {
        let other = Compatibility { soft_dirty: false, cgroup_driver: "cgroupfs".into(), ..node() };
        assert_eq!(other.admits(&node()), Ok(()));
    }

    #[test]
    fn a_node_that_loses_cgroup_namespaces_takes_nothing_under_cgroup_v2() {
        let lost = |version| Compatibility {
            cgroup_version: version,
            cgroup_namespace: CgroupNamespace::Lost,
            ..node()
        };
        assert_eq!(
            lost(2).admits(&lost(2)).unwrap_err().to_string(),
            "cgroup v2, and neither its runtime nor CRIU 4.2 restores cgroup namespaces"
        );
        assert_eq!(lost(1).admits(&lost(1)), Ok(()), "there are none under v1");
        assert_eq!(node().admits(&lost(2)), Ok(()), "what was lost before comes back");
        let before: Compatibility = serde_json::from_value({
            let mut told = serde_json::to_value(node()).unwrap();
            told.as_object_mut().unwrap().remove("cgroupNamespace");
            told
        })
        .unwrap();
        assert_eq!(before.cgroup_namespace, CgroupNamespace::Lost, "an older agent says nothing of it");
    }

    #[test]
    fn what_differs_is_said_in_a_few_words() {
        assert_eq!(refused(|n| n.architecture = "arm64".into()), "architecture arm64, source amd64");
        assert_eq!(
            refused(|n| n.cpu_vendor = "AuthenticAMD".into()),
            "CPU of AuthenticAMD, source GenuineIntel"
        );
        assert_eq!(refused(|n| n.cpu_features = ["fma".into()].into()), "CPU lacks avx, avx2");
        assert_eq!(refused(|n| n.xsave_size = 2696), "xsave size 2696, source 2440");
        assert_eq!(refused(|n| n.xsave_features = "7".into()), "xsave features 7, source 2e7");
        assert_eq!(refused(|n| n.xsave_features = "?".into()), "xsave features ?, source 2e7");
        let unreadable = Compatibility { xsave_features: "?".into(), ..node() };
        assert!(node().admits(&unreadable).is_err(), "what the source has is not known");
        assert_eq!(refused(|n| n.kernel = "5.15.0".into()), "kernel 5.15.0, source 6.1.0-45-amd64");
        assert_eq!(refused(|n| n.criu = "4.1.1".into()), "CRIU 4.1.1, source 4.2");
        assert_eq!(
            refused(|n| n.agent_format = 0),
            "its agent is of an earlier version (format 0, source 1)"
        );
        assert_eq!(refused(|n| n.xsave_size_max = 11008), "largest xsave size 11008, source 2696");
        assert_eq!(refused(|n| n.criu_features = ["timens".into()].into()), "CRIU lacks pidfd_store");
        assert_eq!(refused(|n| n.runtime_class.clear()), "RuntimeClass \"\", source \"shadow\"");
        assert_eq!(refused(|n| n.oci_runtime = "crun 1.2".into()), "OCI runtime crun 1.2, source runc 1.4.3");
        assert_eq!(refused(|n| n.engine = "cri-o 1.3".into()), "engine cri-o 1.3, source containerd 2.3.4");
        assert_eq!(refused(|n| n.cgroup_version = 1), "cgroup v1, source v2");
        assert_eq!(refused(|n| n.security_module = String::new()), "security module none, source apparmor");
        assert!(refused(|n| n.criu_config = "x".into()).starts_with("CRIU is configured otherwise"));
    }

    #[test]
    fn a_list_of_missing_instructions_is_cut() {
        let mut source = node();
        source.cpu_features.extend((0..9).map(|n| format!("x{n}")));
        assert_eq!(node().admits(&source).unwrap_err().to_string(), "CPU lacks x0, x1, x2, x3 and 5 more");
    }

    #[test]
    fn what_must_be_the_same_is_told_in_labels() {
        let labels = node().labels();
        assert!(labels.contains(&(LABEL_OCI_RUNTIME, "runc".to_owned())), "{labels:?}");
        let mut other = node();
        other.oci_runtime = "runc 1.5.0".into();
        other.kernel = "7.0".into();
        assert_eq!(other.labels(), labels, "what may be newer is no label");
        other.cpu_vendor = "  Vendor of \u{df} chips! ".into();
        assert_eq!(other.labels()[0].1, "Vendorofchips");
    }

    #[test]
    fn versions_are_compared_as_numbers() {
        assert!(numbers("6.10") > numbers("6.9.7-custom"));
        assert_eq!(numbers("4.2.0"), numbers("4.2"));
        assert_eq!(numbers("rc"), Vec::<u64>::new());
    }
}
