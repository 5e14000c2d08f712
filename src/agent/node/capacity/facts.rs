//! Reads what a restore here would depend on: processor, kernel, CRIU, runtime, engine, cgroups, security module.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::path::Path;
use std::time::Duration;

use sha2::{Digest as _, Sha256};

use super::super::engine::Engine;
use super::super::host::{Host, HostError};
use super::super::install::{self, effective_config, has_systemd_cgroups};
use crate::api::{
    ABILITY_CGROUP_NAMESPACE, AGENT_FORMAT, CgroupNamespace, Compatibility, RUNTIME_ABILITIES, RUNTIME_CLASS,
};

const VERSION_LIMIT: Duration = Duration::from_secs(10);
const CPUINFO: &str = "/proc/cpuinfo";
const KERNEL: &str = "/proc/sys/kernel/osrelease";
const CGROUP_V2: &str = "/sys/fs/cgroup/cgroup.controllers";
const CRIU_CONFIG: &str = "/etc/criu/runc.conf";
/// The first CRIU that restores a container's cgroup namespace though it leaves cgroups alone (its pull request 3139).
const CRIU_WITH_CGROUP_NAMESPACE: [u64; 2] = [4, 3];
/// What CRIU takes for a security module whose labels it dumps and restores, in the order in which it looks.
const SECURITY_MODULES: [(&str, &str); 2] =
    [("/sys/kernel/security/apparmor", "apparmor"), ("/sys/fs/selinux", "selinux")];
/// As `criu check --feature` names it: the kernel tells which pages were written since they were last looked at.
const SOFT_DIRTY: &str = "mem_dirty_track";

/// Instructions that programs find out at their start and use from then on. What only the kernel uses, and what tells of
/// mitigations, is not among them: it may differ.
const USED_BY_PROGRAMS: [&str; 76] = [
    "abm",
    "adx",
    "aes",
    "amx_bf16",
    "amx_int8",
    "amx_tile",
    "avx",
    "avx2",
    "avx512_4fmaps",
    "avx512_4vnniw",
    "avx512_bf16",
    "avx512_bitalg",
    "avx512_fp16",
    "avx512_vbmi2",
    "avx512_vnni",
    "avx512_vp2intersect",
    "avx512_vpopcntdq",
    "avx512bw",
    "avx512cd",
    "avx512dq",
    "avx512er",
    "avx512f",
    "avx512ifma",
    "avx512pf",
    "avx512vbmi",
    "avx512vl",
    "avx_vnni",
    "bmi1",
    "bmi2",
    "cldemote",
    "clflushopt",
    "clwb",
    "clzero",
    "cmov",
    "cx16",
    "cx8",
    "erms",
    "f16c",
    "fma",
    "fma4",
    "fsgsbase",
    "fsrm",
    "fxsr",
    "gfni",
    "hle",
    "lahf_lm",
    "lzcnt",
    "mmx",
    "movbe",
    "movdir64b",
    "movdiri",
    "mpx",
    "ospke",
    "pclmulqdq",
    "pku",
    "popcnt",
    "rdpid",
    "rdrand",
    "rdseed",
    "rdtscp",
    "rtm",
    "sha_ni",
    "sse",
    "sse2",
    "sse4_1",
    "sse4_2",
    "sse4a",
    "ssse3",
    "tbm",
    "user_shstk",
    "vaes",
    "vpclmulqdq",
    "waitpkg",
    "xop",
    "xsave",
    "xsavec",
];

/// What a kernel may offer to CRIU or not and a restore may need, as `criu check --feature` names it.
const CRIU_FEATURES: [&str; 9] = [
    "clone3_set_tid",
    "get_rseq_conf",
    "kcmp",
    "move_mount_set_group",
    "openat2",
    "pidfd_store",
    "sk_unix_file",
    "tcp_half_closed",
    "timens",
];

/// What could not be found out.
#[derive(Debug, thiserror::Error)]
pub enum FactsError {
    #[error("{path}: {source}")]
    File { path: &'static str, source: std::io::Error },
    #[error(transparent)]
    Host(#[from] HostError),
    #[error("`{program} --version` says {said:?}, in which there is no version")]
    Version { program: &'static str, said: String },
    #[error("CRIU was {before} and is {after} now: what it can do is asked for again")]
    Replaced { before: String, after: String },
}

/// Everything about this node.
pub async fn facts(host: &Host, engine: &Engine) -> Result<Compatibility, FactsError> {
    let read =
        |path: &'static str| fs::read_to_string(path).map_err(|source| FactsError::File { path, source });
    let cpu = read(CPUINFO)?;
    let xsave = xsave();
    let criu = version(host, "criu").await?;
    let (criu_features, soft_dirty) = (criu_features(host).await?, offers(host, SOFT_DIRTY).await?);
    same_still(&criu, version(host, "criu").await?)?;
    let effective = effective_config(host, engine).await?;
    Ok(Compatibility {
        architecture: architecture().to_owned(),
        cpu_vendor: field(&cpu, &["vendor_id", "CPU implementer"]).unwrap_or_default().to_owned(),
        cpu_features: cpu_features(&cpu),
        xsave_size: xsave.size,
        xsave_size_max: xsave.size_max,
        xsave_features: format!("{:x}", xsave.features),
        kernel: read(KERNEL)?.trim().to_owned(),
        cgroup_namespace: cgroup_namespace(&criu, &abilities(host).await?),
        criu,
        criu_features,
        soft_dirty,
        oci_runtime: format!("runc {}", version(host, "runc").await?),
        engine: format!("containerd {}", version(host, "containerd").await?),
        cgroup_version: if host.path(Path::new(CGROUP_V2)).exists() { 2 } else { 1 },
        cgroup_driver: if has_systemd_cgroups(&effective) { "systemd" } else { "cgroupfs" }.to_owned(),
        criu_config: digest(&criu_config(host)?),
        security_module: security_module(|path| host.path(Path::new(path)).exists()).to_owned(),
        agent_format: AGENT_FORMAT,
        // Facts are looked for once the handler is installed.
        runtime_class: RUNTIME_CLASS.to_owned(),
    })
}

/// A CRIU that is being replaced says no to everything, and that is no answer.
fn same_still(before: &str, after: String) -> Result<(), FactsError> {
    if before == after {
        return Ok(());
    }
    Err(FactsError::Replaced { before: before.to_owned(), after })
}

/// None where there is no file.
fn criu_config(host: &Host) -> Result<String, FactsError> {
    match fs::read_to_string(host.path(Path::new(CRIU_CONFIG))) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(String::new()),
        read => read.map_err(|source| FactsError::File { path: CRIU_CONFIG, source }),
    }
}

async fn criu_features(host: &Host) -> Result<BTreeSet<String>, FactsError> {
    let mut offered = BTreeSet::new();
    for feature in CRIU_FEATURES {
        if offers(host, feature).await? {
            offered.insert(feature.to_owned());
        }
    }
    Ok(offered)
}

async fn offers(host: &Host, feature: &str) -> Result<bool, FactsError> {
    let args = ["check", "--feature", feature].map(OsStr::new);
    Ok(answer(host.run("criu", &args, &[], VERSION_LIMIT).await)?.is_some())
}

/// What the node's `shadow-runc` can do, a word a line. An older one, which an agent that may install nothing finds,
/// passes the question on to runc, and that knows no such command.
async fn abilities(host: &Host) -> Result<String, FactsError> {
    let asked = host.run(install::RUNTIME, &[OsStr::new(RUNTIME_ABILITIES)], &[], VERSION_LIMIT).await;
    let told = answer(asked)?.unwrap_or_default();
    Ok(String::from_utf8_lossy(&told).into_owned())
}

/// No is an answer; no answer is an error.
fn answer(ran: Result<Vec<u8>, HostError>) -> Result<Option<Vec<u8>>, HostError> {
    match ran {
        Ok(output) => Ok(Some(output)),
        Err(HostError::Failed { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Who gives a restored container its cgroup namespace back. The runtime does it wherever it can.
fn cgroup_namespace(criu: &str, abilities: &str) -> CgroupNamespace {
    let numbers: Vec<u64> = criu.split('.').map_while(leading_number).collect();
    if abilities.lines().any(|ability| ability == ABILITY_CGROUP_NAMESPACE) {
        CgroupNamespace::Runtime
    } else if numbers.as_slice() >= CRIU_WITH_CGROUP_NAMESPACE.as_slice() {
        CgroupNamespace::Criu
    } else {
        CgroupNamespace::Lost
    }
}

/// 2 of `2-rc1`.
fn leading_number(text: &str) -> Option<u64> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    text[..end].parse().ok()
}

/// Empty where there is none.
fn security_module(exists: impl Fn(&str) -> bool) -> &'static str {
    SECURITY_MODULES.into_iter().find(|(path, _)| exists(path)).map_or("", |(_, name)| name)
}

/// As Go and Kubernetes name it.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// Of the first processor: they are all alike.
fn field<'a>(cpuinfo: &'a str, names: &[&str]) -> Option<&'a str> {
    cpuinfo.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        names.contains(&name.trim()).then(|| value.trim())
    })
}

fn cpu_features(cpuinfo: &str) -> BTreeSet<String> {
    let all = field(cpuinfo, &["flags", "Features"]).unwrap_or_default().split_whitespace();
    // arm64 lists only what programs may use.
    all.filter(|flag| architecture() != "amd64" || USED_BY_PROGRAMS.contains(flag))
        .map(str::to_owned)
        .collect()
}

/// CPUID leaf 13.
#[derive(Debug, Default)]
struct Xsave {
    /// Bytes that are saved of the features which are switched on.
    size: u32,
    /// Of all features that there are.
    size_max: u32,
    features: u64,
}

#[cfg(target_arch = "x86_64")]
fn xsave() -> Xsave {
    let leaf = std::arch::x86_64::__cpuid_count(0xd, 0);
    Xsave { size: leaf.ebx, size_max: leaf.ecx, features: u64::from(leaf.edx) << 32 | u64::from(leaf.eax) }
}

#[cfg(not(target_arch = "x86_64"))]
fn xsave() -> Xsave {
    Xsave::default()
}

async fn version(host: &Host, program: &'static str) -> Result<String, FactsError> {
    let said = host.run(program, &[OsStr::new("--version")], &[], VERSION_LIMIT).await?;
    let said = String::from_utf8_lossy(&said).into_owned();
    first_version(&said).ok_or(FactsError::Version { program, said })
}

/// The first word that begins with a number and a dot, without a leading `v`.
fn first_version(said: &str) -> Option<String> {
    said.split_whitespace().map(|word| word.strip_prefix('v').unwrap_or(word)).find_map(|word| {
        let (major, minor) = word.split_once('.')?;
        let number = |text: &str| text.bytes().next().is_some_and(|first| first.is_ascii_digit());
        (major.bytes().all(|b| b.is_ascii_digit()) && number(major) && number(minor)).then(|| word.to_owned())
    })
}

/// Of the settings, in whatever order and with whatever remarks they stand.
fn digest(config: &str) -> String {
    let settings: BTreeSet<&str> =
        config.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')).collect();
    let text: Vec<&str> = settings.into_iter().collect();
    hex::encode(Sha256::digest(text.join("\n")))[..8].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_say_their_version_each_in_its_way() {
        for (said, is) in [
            ("runc version 1.4.3\ncommit: v1.4.3-0-g1\nspec: 1.3.0", "1.4.3"),
            ("Version: 4.2\nGitID: v4.2", "4.2"),
            ("containerd github.com/containerd/containerd/v2 v2.3.4 0a1b", "2.3.4"),
            ("containerd github.com/containerd/containerd/v2 2.1.0+unknown", "2.1.0+unknown"),
        ] {
            assert_eq!(first_version(said).as_deref(), Some(is), "{said}");
        }
        assert_eq!(first_version("no idea"), None);
    }

    #[test]
    fn a_criu_that_is_replaced_meanwhile_is_not_told_as_one_that_can_nothing() {
        assert!(same_still("4.2", "4.2".to_owned()).is_ok());
        let told = same_still("4.2", "4.3".to_owned()).unwrap_err().to_string();
        assert!(told.contains("4.2") && told.contains("4.3"), "{told}");
    }

    #[test]
    fn only_instructions_that_programs_use_count() {
        let cpuinfo = "processor : 0\nvendor_id\t: GenuineIntel\nflags\t\t: fpu avx2 ibrs hypervisor fma\n\nprocessor : 1\n";
        assert_eq!(field(cpuinfo, &["vendor_id"]), Some("GenuineIntel"));
        assert_eq!(cpu_features(cpuinfo), ["avx2", "fma"].map(str::to_owned).into());
        assert!(USED_BY_PROGRAMS.is_sorted());
    }

    #[test]
    fn a_cgroup_namespace_comes_back_by_the_runtime_or_by_a_new_criu() {
        assert_eq!(cgroup_namespace("4.2.1", "cgroup-namespace\n"), CgroupNamespace::Runtime);
        for (criu, by) in [
            ("4.2.1", CgroupNamespace::Lost),
            ("4.3", CgroupNamespace::Criu),
            ("4.10-rc1", CgroupNamespace::Criu),
            ("5", CgroupNamespace::Criu),
            ("unknown", CgroupNamespace::Lost),
        ] {
            assert_eq!(cgroup_namespace(criu, ""), by, "{criu}");
        }
    }

    #[test]
    fn the_security_module_is_the_one_that_criu_takes() {
        assert_eq!(security_module(|path| path == "/sys/fs/selinux"), "selinux");
        assert_eq!(security_module(|_| true), "apparmor");
        assert_eq!(security_module(|_| false), "");
    }

    #[tokio::test]
    async fn a_runtime_that_does_not_know_the_question_says_no() {
        let no = "exit 1".as_ref();
        let host = Host::at(Path::new("/"));
        let ran = host.run("sh", &["-c".as_ref(), no], &[], VERSION_LIMIT).await;
        assert_eq!(answer(ran).unwrap(), None);
        assert!(answer(host.run("/nowhere", &[], &[], VERSION_LIMIT).await).is_err());
    }

    #[test]
    fn remarks_and_order_of_settings_mean_nothing() {
        assert_eq!(digest("# mine\ntcp-close\n\nlink-remap"), digest("link-remap\ntcp-close\n"));
        assert_ne!(digest("tcp-close"), digest(""));
    }

    #[cfg(target_arch = "x86_64")]
    #[test]
    fn this_processor_saves_something() {
        let found = xsave();
        assert!(found.size >= 576 && found.size_max >= found.size && found.features & 3 == 3, "{found:?}");
    }
}
