use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::Duration;

use super::*;
use crate::api::FoundMemory;

/// A folder that looks like `/proc`.
struct Fake {
    dir: tempfile::TempDir,
}

const MOUNTS: &str = "700 600 0:58 / / rw master:9 - overlay overlay rw,lowerdir=/l,upperdir=/u,workdir=/w\n\
    701 700 0:60 / /proc rw - proc proc rw\n";

impl Fake {
    /// With the container's first process, 100.
    fn new() -> Self {
        let fake = Self { dir: tempfile::tempdir().unwrap() };
        fake.process(100, 50, "app", 1);
        fake.write(100, "mountinfo", MOUNTS);
        fake
    }

    fn path(&self, pid: u32, file: &str) -> PathBuf {
        self.dir.path().join(pid.to_string()).join(file)
    }

    fn write(&self, pid: u32, file: &str, text: &str) {
        let path = self.path(pid, file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn process(&self, pid: u32, parent: u32, name: &str, inner: u32) {
        self.write(
            pid,
            "status",
            &format!(
                "Name:\t{name}\nState:\tS (sleeping)\nPPid:\t{parent}\nTracerPid:\t0\nNSpid:\t{pid}\t{inner}\n\
                 RssAnon:\t4 kB\nThreads:\t2\n"
            ),
        );
        self.write(pid, "stat", &format!("{pid} ({name}) S {parent} {pid} {pid} 0 -1"));
        self.write(pid, "maps", "7f02-7f03 rw-p 00000000 00:00 0 \n");
        for kind in ["pid", "ipc", "uts", "user", "mnt"] {
            self.link(pid, &format!("ns/{kind}"), &format!("{kind}:[1]"));
        }
        fs::create_dir_all(self.path(pid, "fd")).unwrap();
    }

    fn link(&self, pid: u32, file: &str, to: &str) {
        let path = self.path(pid, file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let _ = fs::remove_file(&path);
        symlink(to, path).unwrap();
    }

    fn open(&self, pid: u32, number: u32, link: &str, info: &str) {
        self.link(pid, &format!("fd/{number}"), link);
        self.write(pid, &format!("fdinfo/{number}"), info);
    }

    fn look(&self, pids: &[u32], config: Config) -> Findings {
        let pids = pids.to_vec();
        let scene = Scene {
            init: 100,
            members: Box::new(move || pids.clone()),
            pod: "0a1b".into(),
            config,
            upper: None,
            reach: Box::new(Path::to_owned),
        };
        let deadline = Instant::now() + Duration::from_secs(10);
        gather(&Proc::at(self.dir.path(), protocol, peers), &scene, Depth::Obstacles, deadline)
    }
}

#[test]
fn what_the_engine_gave_the_container_is_told() {
    let config = r#"{"process": {"selinuxLabel": "u:r:t:s0"}, "linux": {"namespaces": [{"type": "user"}]}}"#;
    let found = Fake::new().look(&[100], serde_json::from_str(config).unwrap());
    assert_eq!((found.selinux_label.as_deref(), found.user_namespace), (Some("u:r:t:s0"), true));
}

/// In the place of the kernel's attribute: by the inode.
fn protocol(descriptor: &Path) -> Option<String> {
    let link = fs::read_link(descriptor).ok()?;
    let name = match link.to_str()? {
        "socket:[73225]" => "MPTCPv6",
        "socket:[42]" => "TCP",
        "socket:[55]" => "UDP",
        "socket:[60]" => "PING",
        _ => "UNIX-STREAM",
    };
    Some(name.to_owned())
}

/// In the place of the kernel's answer.
#[expect(clippy::unnecessary_wraps, reason = "as the kernel is asked")]
fn peers(_: &Path) -> std::io::Result<Vec<(u64, u64)>> {
    Ok(vec![(1, 2), (2, 1), (3, 4), (5, 6), (7, 0)])
}

#[test]
fn an_ordinary_container_has_nothing_to_tell() {
    let fake = Fake::new();
    fake.process(101, 100, "worker", 7);
    fake.open(100, 0, "/dev/null", "mnt_id:\t9\n");
    fake.open(100, 1, "pipe:[88]", "mnt_id:\t14\n");
    fake.open(100, 2, "/data/x", "mnt_id:\t700\n");
    fake.open(101, 5, "socket:[7]", "");
    fake.open(101, 6, "anon_inode:[eventpoll]", "");
    let found = fake.look(&[100, 101], Config::default());
    let memory = FoundMemory { anonymous: 8 << 10, ..FoundMemory::default() };
    let expected = Findings { processes: 2, threads: 4, memory, ..Findings::default() };
    assert_eq!(found, expected);
}

#[test]
fn sockets_are_told_once_with_their_address_and_owner() {
    let fake = Fake::new();
    fake.process(101, 100, "worker", 7);
    let tcp6 = "  sl  local_address\n   0: 00000000000000000000000000000000:1F90 00000000000000000000000000000000:0000 0A \
        00000000:00000000 00:00000000 00000000     0        0 73225 2 0 100 0 0 10 0\n";
    let udp = "  sl  local_address\n  77: 0701F40A:B1B1 0A00C80A:1FBD 01 00000000:00000000 00:00000000 00000000     0        \
        0 55 2 0 0\n";
    fake.write(100, "net/tcp6", tcp6);
    fake.write(100, "net/udp", udp);
    for pid in [100, 101] {
        fake.open(pid, 3, "socket:[73225]", "");
    }
    fake.open(100, 4, "socket:[55]", "");
    fake.open(100, 5, "socket:[60]", "");
    let found = fake.look(&[100, 101], Config::default()).sockets;
    let told: Vec<_> = found
        .iter()
        .map(|one| (one.kind, one.local.map(|local| local.to_string()), one.listens, one.owner.pid))
        .collect();
    let mut told = told;
    told.sort_by_key(|one| format!("{one:?}"));
    assert_eq!(
        told,
        [
            (SocketKind::Mptcp, Some("[::]:8080".into()), true, 1),
            (SocketKind::OwnAddress, Some("10.244.1.7:45489".into()), false, 1),
            (SocketKind::Unknown, None, false, 1),
        ]
    );
}

#[test]
fn open_files_that_stand_against_a_dump_are_told() {
    let fake = Fake::new();
    fake.open(100, 3, "anon_inode:[io_uring]", "");
    fake.open(100, 4, "anon_inode:[userfaultfd]", "");
    fake.open(100, 5, "/dev/fuse-that-is-not-there", "");
    fake.open(100, 6, "/var/lib/other", "mnt_id:\t77\n");
    fake.open(
        100,
        7,
        "anon_inode:inotify",
        "inotify wd:1 ino:9 sdev:3a mask:2\ninotify wd:2 ino:9 sdev:fe00001 mask:2\n",
    );
    fake.write(100, "maps", "7f00-7f01 rw-s 00000000 00:0f 2064      anon_inode:[io_uring]\n");
    let found = fake.look(&[100], Config::default());
    let mut told: Vec<_> = found.descriptors.iter().map(|one| (one.kind, one.object.as_str())).collect();
    told.sort_by_key(|one| format!("{one:?}"));
    assert_eq!(
        told,
        [
            (DescriptorKind::Anonymous, "anon_inode:[userfaultfd]"),
            (DescriptorKind::Device, "/dev/fuse-that-is-not-there"),
            (DescriptorKind::IoUring, "anon_inode:[io_uring]"),
            (DescriptorKind::Outside, "/var/lib/other"),
            (DescriptorKind::WatchOnOverlay, "1 watches"),
        ]
    );
}

#[test]
fn a_terminal_is_told_only_where_its_other_end_is_outside() {
    let fake = Fake::new();
    fake.open(100, 0, "/dev/pts/0", "");
    fake.open(100, 3, "/dev/ptmx", "tty-index:\t4\n");
    fake.open(100, 4, "/dev/pts/4", "");
    let found = fake.look(&[100], Config::default()).descriptors;
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!((found[0].kind, found[0].object.as_str()), (DescriptorKind::Terminal, "/dev/pts/0"));
}

#[test]
fn who_came_by_exec_is_told_and_its_files_are_not() {
    let fake = Fake::new();
    fake.process(200, 60, "sh", 31);
    fake.write(200, "stat", "200 (sh) S 60 200 200 34816 -1");
    fake.process(201, 200, "top", 32);
    fake.open(200, 0, "/dev/pts/0", "");
    fake.open(201, 3, "anon_inode:[io_uring]", "");
    let found = fake.look(&[100, 200, 201], Config::default());
    let sh = ProcessName { pid: 31, name: "sh".into() };
    assert_eq!(found.visitors, [Visitor { process: sh, terminal: true, connected: false }]);
    assert_eq!((found.processes, found.descriptors.len()), (1, 0));
}

#[test]
fn unix_sockets_are_told_where_the_other_end_is_not_dumped() {
    let fake = Fake::new();
    fake.process(200, 60, "sh", 31);
    fake.process(201, 200, "psql", 32);
    for (pid, number, inode) in [(100, 3, 1), (100, 4, 2), (100, 5, 3), (100, 6, 5), (100, 7, 7), (201, 3, 4)]
    {
        fake.open(pid, number, &format!("socket:[{inode}]"), "");
    }
    let found = fake.look(&[100, 200, 201], Config::default());
    assert_eq!(found.sockets.len(), 1, "5 leads to 6, which is nobody's: {found:?}");
    assert_eq!((found.sockets[0].kind, found.sockets[0].owner.pid), (SocketKind::UnixToOutside, 1));
    let sh = ProcessName { pid: 31, name: "sh".into() };
    assert_eq!(found.visitors, [Visitor { process: sh, terminal: false, connected: true }]);
}

#[test]
fn tracers_and_namespaces_of_its_own_are_told() {
    let fake = Fake::new();
    fake.process(101, 100, "traced", 7);
    let status = fs::read_to_string(fake.path(101, "status")).unwrap();
    fake.write(101, "status", &status.replace("TracerPid:\t0", "TracerPid:\t100"));
    fake.process(102, 100, "debugged", 8);
    fake.write(102, "status", &status.replace("TracerPid:\t0", "TracerPid:\t9"));
    fake.process(103, 100, "sandboxed", 9);
    fake.link(103, "ns/user", "user:[2]");
    let found = fake.look(&[100, 101, 102, 103], Config::default()).entangled;
    let told: Vec<_> = found.into_iter().map(|one| one.with).collect();
    assert_eq!(told, [Tie::TracerWithin, Tie::TracerOutside, Tie::Namespace("user".into())]);
}

#[test]
fn mounts_of_nobody_are_told() {
    let fake = Fake::new();
    let config = serde_json::json!({ "mounts": [
        { "destination": "/etc/hosts", "type": "bind", "source": "/var/lib/kubelet/pods/0a1b/etc-hosts" },
        { "destination": "/opt", "type": "bind", "source": "/opt", "options": ["rbind", "rw"] },
    ] });
    let found = fake.look(&[100], serde_json::from_value(config).unwrap()).mounts;
    assert_eq!(found.len(), 1);
    assert_eq!((found[0].kind, found[0].destination.as_str()), (MountKind::Foreign, "/opt"));
}

#[test]
fn a_zombie_and_a_process_that_has_gone_are_no_trouble() {
    let fake = Fake::new();
    fake.process(101, 100, "dead", 7);
    fake.write(101, "stat", "101 (dead) Z 100 101 101 0 -1");
    fs::remove_dir_all(fake.path(101, "fd")).unwrap();
    let found = fake.look(&[100, 101, 999], Config::default());
    assert_eq!((found.processes, found.left_out.len()), (2, 0), "{found:?}");
}

#[test]
fn who_has_no_time_left_says_what_was_not_looked_at() {
    let fake = Fake::new();
    let scene = Scene {
        init: 100,
        members: Box::new(Vec::new),
        pod: "0a1b".into(),
        config: Config::default(),
        upper: None,
        reach: Box::new(Path::to_owned),
    };
    let found = gather(&Proc::at(fake.dir.path(), protocol, peers), &scene, Depth::Obstacles, Instant::now());
    assert_eq!(found.left_out, ["open files of 1 processes"]);
}
