//! What an open file is, by the link that `/proc` shows and its `fdinfo`. Pure.

/// By its link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Link {
    /// Dumped like any other.
    Plain,
    Socket(u64),
    IoUring,
    /// An object of the kernel that CRIU does not know.
    Anonymous,
    /// inotify or fanotify.
    Watches,
    /// The end of a terminal that programs use.
    Terminal(u32),
    /// The other end of some terminal.
    TerminalMaster,
    /// Below /dev and none of those that every container has.
    Device,
    Memfd,
    /// Without its name.
    Deleted,
    /// A file or folder with a name.
    File,
}

/// Kinds of `anon_inode` that CRIU dumps; watches have their own.
const DUMPED: [&str; 5] = ["[eventfd]", "[eventpoll]", "[signalfd]", "[timerfd]", "[pidfd]"];
/// What a container's /dev has; they have no state.
const USUAL: [&str; 7] =
    ["/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/tty", "/dev/kmsg"];
/// File systems below /dev.
const BELOW_DEV: [&str; 3] = ["/dev/shm/", "/dev/mqueue/", "/dev/hugepages/"];
/// A terminal whose master is nobody's in the container.
const CONSOLE: &str = "/dev/console";

impl Link {
    pub fn of(link: &str) -> Self {
        if let Some(inode) = link.strip_prefix("socket:[").and_then(|rest| rest.strip_suffix(']')) {
            return inode.parse().map_or(Self::Plain, Self::Socket);
        }
        if let Some(kind) = link.strip_prefix("anon_inode:") {
            return match kind {
                "[io_uring]" => Self::IoUring,
                "inotify" | "[inotify]" | "[fanotify]" => Self::Watches,
                kind if DUMPED.contains(&kind) => Self::Plain,
                _ => Self::Anonymous,
            };
        }
        if !link.starts_with('/') {
            return Self::Plain; // pipes, namespaces, pidfd
        }
        if link.starts_with("/memfd:") {
            return Self::Memfd;
        }
        if link == "/dev/ptmx" || link == "/dev/pts/ptmx" {
            return Self::TerminalMaster;
        }
        if let Some(number) = link.strip_prefix("/dev/pts/") {
            return number.trim_end_matches(" (deleted)").parse().map_or(Self::Device, Self::Terminal);
        }
        if link == CONSOLE {
            return Self::Terminal(u32::MAX);
        }
        if USUAL.contains(&link) {
            return Self::Plain;
        }
        if link.ends_with(" (deleted)") {
            return Self::Deleted;
        }
        if link.starts_with("/dev/") && !BELOW_DEV.iter().any(|known| link.starts_with(known)) {
            return Self::Device;
        }
        Self::File
    }
}

/// What a mapping of that name means, for the descriptor may be closed: io_uring, other objects and devices.
pub fn of_mapping(name: &str) -> Option<Link> {
    match Link::of(name) {
        found @ (Link::IoUring | Link::Anonymous | Link::Device) => Some(found),
        _ => None,
    }
}

/// Names of what is mapped, from `maps`, each once.
pub fn mapped(maps: &str) -> Vec<&str> {
    // Address, rights, offset, device, inode, name; the name may have blanks.
    let name = |line| -> Option<&str> {
        let mut rest: &str = line;
        for _ in 0..5 {
            rest = rest.trim_start().split_once(' ')?.1;
        }
        Some(rest.trim_start()).filter(|name| name.starts_with("anon_inode:") || name.starts_with("/dev/"))
    };
    let mut names: Vec<&str> = maps.lines().filter_map(name).collect();
    names.sort_unstable();
    names.dedup();
    names
}

/// Number of the mount that the file is on.
pub fn mount_id(fdinfo: &str) -> Option<u32> {
    number(fdinfo, "mnt_id:")
}

/// Which terminal this is the master of.
pub fn terminal_of_master(fdinfo: &str) -> Option<u32> {
    number(fdinfo, "tty-index:")
}

fn number(fdinfo: &str, name: &str) -> Option<u32> {
    fdinfo.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
}

/// Watches on the file system with that device number (as in `mountinfo`).
pub fn watches_on(fdinfo: &str, device: u32) -> usize {
    let on_device = |line: &&str| {
        let is_watch = line.starts_with("inotify ") || line.starts_with("fanotify ino:");
        let sdev = line.split_whitespace().find_map(|field| field.strip_prefix("sdev:"));
        is_watch && sdev.and_then(|hex| u32::from_str_radix(hex, 16).ok()) == Some(device)
    };
    fdinfo.lines().filter(on_device).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_told_apart() {
        for (link, expected) in [
            ("socket:[73225]", Link::Socket(73225)),
            ("pipe:[88]", Link::Plain),
            ("net:[4026531840]", Link::Plain),
            ("pidfd:[12]", Link::Plain),
            ("anon_inode:[eventpoll]", Link::Plain),
            ("anon_inode:[pidfd]", Link::Plain),
            ("anon_inode:inotify", Link::Watches),
            ("anon_inode:[fanotify]", Link::Watches),
            ("anon_inode:[io_uring]", Link::IoUring),
            ("anon_inode:[userfaultfd]", Link::Anonymous),
            ("anon_inode:bpf-prog", Link::Anonymous),
            ("anon_inode:bpf-map", Link::Anonymous),
            ("anon_inode:[perf_event]", Link::Anonymous),
            ("/dev/null", Link::Plain),
            ("/dev/pts/3", Link::Terminal(3)),
            ("/dev/ptmx", Link::TerminalMaster),
            ("/dev/fuse", Link::Device),
            ("/dev/net/tun", Link::Device),
            ("/dev/shm/sem.x", Link::File),
            ("/dev/shm/sem.x (deleted)", Link::Deleted),
            ("/memfd:cache (deleted)", Link::Memfd),
            ("/tmp/x (deleted)", Link::Deleted),
            ("/data/x", Link::File),
        ] {
            assert_eq!(Link::of(link), expected, "{link}");
        }
    }

    #[test]
    fn a_ring_whose_descriptor_is_closed_is_still_mapped() {
        let maps = "7f00-7f01 rw-s 00000000 00:0f 2064                       anon_inode:[io_uring]\n\
            7f01-7f02 rw-s 10000000 00:0f 2064                       anon_inode:[io_uring]\n\
            7f02-7f03 rw-p 00000000 00:00 0 \n\
            7f03-7f04 r--p 00000000 00:3a 77                         /usr/lib/a b.so\n\
            7f04-7f05 rw-s 00000000 00:01 9                          /dev/zero (deleted)\n\
            7f05-7f06 rw-s 00000000 00:06 9                          /dev/fb0\n";
        let names = mapped(maps);
        assert_eq!(names, ["/dev/fb0", "/dev/zero (deleted)", "anon_inode:[io_uring]"]);
        let found: Vec<_> = names.into_iter().filter_map(of_mapping).collect();
        assert_eq!(found, [Link::Device, Link::IoUring]);
    }

    #[test]
    fn fdinfo_tells_mount_terminal_and_watches() {
        assert_eq!(mount_id("pos:\t0\nflags:\t02\nmnt_id:\t713\nino:\t5\n"), Some(713));
        assert_eq!(terminal_of_master("pos:\t0\nmnt_id:\t1\ntty-index:\t4\n"), Some(4));
        assert_eq!(terminal_of_master("pos:\t0\n"), None);
        let watches = "pos:\t0\nflags:\t00\nmnt_id:\t15\nino:\t2063\n\
            inotify wd:2 ino:3f sdev:3a mask:2 ignored_mask:0 fhandle-bytes:8 fhandle-type:1 f_handle:3f\n\
            inotify wd:1 ino:9 sdev:800001 mask:2 ignored_mask:0 fhandle-bytes:8 fhandle-type:1 f_handle:9\n\
            fanotify flags:0 event-flags:8000\nfanotify ino:4f sdev:3a mflags:0 mask:3b\n";
        assert_eq!(watches_on(watches, 0x3a), 2);
        assert_eq!(watches_on(watches, 0x0080_0001), 1);
    }
}
