//! Linux capabilities by name and number. Pure.

/// In the kernel's order.
const NAMES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];
pub const SETGID: u64 = 1 << 6;
pub const SETUID: u64 = 1 << 7;
pub const SYS_ADMIN: u64 = 1 << 21;

/// The set of these names; one that is not known grants nothing.
pub fn set(names: &[String]) -> u64 {
    let bit = |name: &String| NAMES.iter().position(|known| name.strip_prefix("CAP_") == Some(known));
    names.iter().filter_map(bit).fold(0, |set, bit| set | 1 << bit)
}

/// For people.
pub fn names(set: u64) -> String {
    let bits = (0..64).filter(|bit| set & (1 << bit) != 0);
    let name = |bit: usize| NAMES.get(bit).map_or_else(|| bit.to_string(), |name| format!("CAP_{name}"));
    bits.map(name).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_agree() {
        assert_eq!(
            set(&["CAP_SETUID".into(), "CAP_SETGID".into(), "CAP_X".into(), "SYS_ADMIN".into()]),
            SETUID | SETGID
        );
        assert_eq!(set(&["CAP_SYS_ADMIN".into()]), SYS_ADMIN);
        assert_eq!(set(&["CAP_CHECKPOINT_RESTORE".into()]), 1 << 40);
        assert_eq!(names(1 | 1 << 40 | 1 << 50), "CAP_CHOWN, CAP_CHECKPOINT_RESTORE, 50");
    }
}
