use super::*;
use crate::api::ProcessName;

fn owner() -> ProcessName {
    ProcessName { pid: 7, name: "app".into() }
}

fn socket(kind: SocketKind, local: &str, protocol: &str) -> FoundSocket {
    let local = Some(local.parse().unwrap());
    FoundSocket { kind, protocol: protocol.into(), local, peer: None, listens: true, owner: owner() }
}

fn descriptor(kind: DescriptorKind, object: &str) -> FoundDescriptor {
    FoundDescriptor { kind, object: object.into(), bytes: None, owner: owner() }
}

fn refusals(findings: &Findings) -> Vec<Objection> {
    judge(findings, &Circumstances::default()).refusals
}

#[test]
fn nothing_unusual_is_no_objection() {
    let findings = Findings { processes: 3, threads: 9, ..Findings::default() };
    assert_eq!(judge(&findings, &Circumstances::default()), Judgement::default());
}

#[test]
fn an_mptcp_listener_is_named_with_what_helps() {
    let findings =
        Findings { sockets: vec![socket(SocketKind::Mptcp, "[::]:8080", "MPTCPv6")], ..Findings::default() };
    let told = refusals(&findings);
    assert_eq!(told[0].reason, Reason::MptcpSocket);
    assert_eq!(
        told[0].message,
        "listener :::8080 is MPTCP: set GODEBUG=multipathtcp=0, or let SHADOW prepare the pod (restart it once)"
    );
    assert!(!told[0].passes);
}

#[test]
fn a_socket_on_one_of_several_addresses_of_its_kind_is_named() {
    let on = |local: &str, all: &[&str]| {
        let sockets = vec![socket(SocketKind::OwnAddress, local, "TCP")];
        let addresses = all.iter().map(|address| address.parse().unwrap()).collect();
        refusals(&Findings { sockets, addresses, ..Findings::default() })
    };
    assert_eq!(on("10.0.0.7:80", &["10.0.0.7", "fd00::7", "fe80::7"]), []);
    assert_eq!(on("0.0.0.0:80", &["10.0.0.7", "10.1.0.7"]), []);
    let told = on("10.0.0.7:80", &["10.0.0.7", "10.1.0.7", "fd00::7"]);
    assert_eq!(
        told[0].message,
        "listener 10.0.0.7:80 is bound to one of the pod's addresses and there is another (10.1.0.7): let it listen on 0.0.0.0"
    );
    assert_eq!((told[0].reason, told[0].passes), (Reason::UnsupportedSocket, false));
    assert!(on("[fd00::7]:80", &["fd00::7", "fd00::8"])[0].message.ends_with("listen on ::"));
}

#[test]
fn what_is_carried_is_no_objection() {
    let findings = Findings {
        sockets: vec![
            socket(SocketKind::OwnAddress, "10.244.1.7:8080", "TCP"),
            socket(SocketKind::Raw, "0.0.0.0:1", "RAW"),
        ],
        descriptors: vec![
            FoundDescriptor { bytes: Some(1 << 20), ..descriptor(DescriptorKind::Deleted, "/tmp/x") },
            descriptor(DescriptorKind::Memfd, "/memfd:x"),
        ],
        mounts: vec![FoundMount {
            kind: MountKind::ImageVolume,
            destination: "/data".into(),
            fs_type: "bind".into(),
            content: None,
        }],
        shm: crate::api::FoundTree { files: 3, apparent_bytes: 9, ..Default::default() },
        ..Findings::default()
    };
    assert_eq!(refusals(&findings), []);
}

#[test]
fn every_refusal_names_its_object_within_a_sentence() {
    let long = "/a/path/that/goes/on".repeat(20);
    let findings = Findings {
        sockets: vec![socket(SocketKind::Unknown, "0.0.0.0:8", "PING")],
        descriptors: vec![
            descriptor(DescriptorKind::IoUring, "anon_inode:[io_uring]"),
            descriptor(DescriptorKind::Anonymous, "anon_inode:[userfaultfd]"),
            descriptor(DescriptorKind::WatchOnOverlay, "2 watches"),
            descriptor(DescriptorKind::Terminal, "/dev/pts/0"),
            descriptor(DescriptorKind::Device, "/dev/fuse"),
            descriptor(DescriptorKind::Outside, &long),
            FoundDescriptor { bytes: Some(300 << 20), ..descriptor(DescriptorKind::Deleted, "/tmp/big") },
        ],
        entangled: vec![
            Entangled { process: owner(), with: Tie::TracerWithin },
            Entangled { process: owner(), with: Tie::Namespace("pid".into()) },
        ],
        mounts: vec![
            FoundMount {
                kind: MountKind::Foreign,
                destination: "/opt/x".into(),
                fs_type: "bind".into(),
                content: None,
            },
            FoundMount {
                kind: MountKind::MadeWithin,
                destination: "/mnt".into(),
                fs_type: "fuse.sshfs".into(),
                content: None,
            },
        ],
        ..Findings::default()
    };
    let told = refusals(&findings);
    let count = 1 + findings.descriptors.len() + findings.entangled.len() + findings.mounts.len();
    assert_eq!(told.len(), count, "{told:#?}");
    for one in &told {
        assert!(one.message.chars().count() <= 200, "{}", one.message);
        assert!(!one.passes && crate::api::is_property_of_the_pod(one.reason), "{one:?}");
    }
    for object in [
        "PING",
        "userfaultfd",
        "2 watches",
        "/dev/pts/0",
        "/dev/fuse",
        "/tmp/big",
        "pid namespace",
        "/opt/x",
        "sshfs",
    ] {
        assert!(told.iter().any(|one| one.message.contains(object)), "{object} in {told:#?}");
    }
}

#[test]
fn what_the_node_s_security_gave_it_is_refused_by_name() {
    let label = "system_u:system_r:container_t:s0:c182,c927";
    let findings =
        Findings { selinux_label: Some(label.into()), user_namespace: true, ..Findings::default() };
    let told = refusals(&findings);
    let reasons: Vec<_> = told.iter().map(|one| one.reason).collect();
    assert_eq!(reasons, [Reason::UserNamespace, Reason::SelinuxLabel]);
    assert!(told[0].message.contains("hostUsers: false") && told[1].message.contains(label), "{told:?}");
    assert!(told.iter().all(|one| !one.passes && crate::api::is_property_of_the_pod(one.reason)));
    assert!(told.iter().all(|one| one.message.chars().count() <= 200), "{told:?}");
}

/// CRIU dumps the pod without it, tried with `runc exec` of 1.3 and CRIU 4.2.1.
#[test]
fn a_session_ends_with_the_move_and_hinders_it_only_by_a_socket() {
    let visitor = |name: &str, terminal, connected| Visitor {
        process: ProcessName { pid: 4711, name: name.into() },
        terminal,
        connected,
    };
    let findings = Findings {
        visitors: vec![
            visitor("sh", true, false),
            visitor("psql", true, true),
            visitor("probe", false, false),
        ],
        ..Findings::default()
    };
    let judgement = judge(&findings, &Circumstances::default());
    let [session] = judgement.refusals.as_slice() else { panic!("{judgement:?}") };
    assert_eq!((session.reason, session.passes), (Reason::ExecSession, true));
    assert!(session.message.contains("PID 4711 (psql)"), "{session:?}");
    let [warning] = judgement.warnings.as_slice() else { panic!("{judgement:?}") };
    assert!(warning.contains("PID 4711 (sh)"), "{warning}");
}

#[test]
fn what_stands_against_it_for_good_comes_first_and_each_thing_once() {
    let ring = descriptor(DescriptorKind::IoUring, "anon_inode:[io_uring]");
    let findings = Findings {
        visitors: vec![Visitor { process: owner(), terminal: true, connected: true }],
        descriptors: vec![ring.clone(), ring.clone(), ring],
        ..Findings::default()
    };
    let reasons: Vec<_> = refusals(&findings).into_iter().map(|one| one.reason).collect();
    assert_eq!(reasons, [Reason::IoUring, Reason::ExecSession]);
}

#[test]
fn what_was_left_out_is_told() {
    let findings = Findings { left_out: vec!["descriptors of 3 processes".into()], ..Findings::default() };
    let told = judge(&findings, &Circumstances::default()).warnings;
    assert_eq!(told, ["not looked at: descriptors of 3 processes"]);
}
