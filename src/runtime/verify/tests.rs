use super::capabilities::set;
use super::mounts::Same;
use super::*;

/// One of a task's sets.
type Field = fn(&mut Task) -> &mut u64;

/// As containerd writes it for a pod of a user that is not root, with the default seccomp and AppArmor profiles.
fn config() -> serde_json::Value {
    serde_json::json!({
        "process": {
            "user": {"uid": 1000, "gid": 1000, "additionalGids": [1000, 2000]},
            "capabilities": {
                "bounding": ["CAP_CHOWN", "CAP_NET_BIND_SERVICE"], "effective": ["CAP_CHOWN"],
                "permitted": ["CAP_CHOWN"]
            },
            "noNewPrivileges": true, "apparmorProfile": "cri-containerd.apparmor.d",
        },
        "root": {"path": "rootfs", "readonly": true},
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid"]},
            {"destination": "/data", "type": "bind", "source": "/v", "options": ["rbind", "ro"]},
        ],
        "linux": {
            "namespaces": [
                {"type": "pid"}, {"type": "mount"}, {"type": "cgroup"}, {"type": "network", "path": "/n"},
                {"type": "ipc", "path": "/i"}, {"type": "uts", "path": "/u"},
            ],
            "seccomp": {"defaultAction": "SCMP_ACT_ERRNO"},
            "maskedPaths": ["/proc/kcore"], "readonlyPaths": ["/proc/sys"],
        },
    })
}

fn spec_of(config: &serde_json::Value) -> Spec {
    Spec::parse(&config.to_string()).unwrap()
}

/// With one value of the configuration set.
fn with(pointer: &str, value: serde_json::Value) -> Spec {
    let mut config = config();
    *config.pointer_mut(pointer).unwrap() = value;
    spec_of(&config)
}

fn names_of(kinds: [u64; 6]) -> BTreeMap<Kind, u64> {
    ["pid", "mnt", "cgroup", "net", "ipc", "uts"].into_iter().zip(kinds).collect()
}

fn task() -> Task {
    Task {
        pid: 70,
        tid: 71,
        name: "app".into(),
        uids: vec![1000; 4],
        gids: vec![1000; 4],
        groups: vec![1000, 2000],
        permitted: 1,
        effective: 1,
        bounding: set(&["CAP_CHOWN".into(), "CAP_NET_BIND_SERVICE".into()]),
        no_new_privileges: true,
        seccomp: 2,
        filters: Some(1),
        label: Some("cri-containerd.apparmor.d (enforce)".into()),
        namespaces: names_of([11, 12, 13, 24, 25, 26]),
        ..Task::default()
    }
}

fn mount(point: &str, kind: &str, device: &str, root: &str, options: &str) -> Mount {
    let options = options.split(',').map(str::to_owned).collect();
    let (device, root) = (device.to_owned(), root.to_owned());
    Mount { id: 1, device, root, point: point.to_owned(), options, kind: kind.to_owned() }
}

fn table() -> Vec<Mount> {
    vec![
        mount("/", "overlay", "0:50", "/", "ro,relatime"),
        mount("/proc", "proc", "0:51", "/", "rw,nosuid"),
        mount("/data", "ext4", "8:1", "/v", "ro"),
        mount("/proc/kcore", "devtmpfs", "0:6", "/null", "rw"),
        mount("/proc/sys", "proc", "0:51", "/sys", "ro"),
    ]
}

fn findings() -> Findings {
    let grant = |point: &str, same: Option<(&str, &str)>, kinds: &[&str], options: &[&'static str]| Grant {
        point: point.to_owned(),
        same: same.map(|(device, root)| Same { device: device.to_owned(), root: root.to_owned() }),
        kinds: kinds.iter().map(|kind| (*kind).to_owned()).collect(),
        options: options.to_vec(),
    };
    Findings {
        tasks: vec![Task { tid: 70, ..task() }, task()],
        node: names_of([1, 2, 3, 4, 5, 6]),
        named: [("net", 24), ("ipc", 25), ("uts", 26)].into(),
        mounts: vec![table()],
        grants: vec![
            grant("/", Some(("0:50", "/")), &[], &["ro"]),
            grant("/proc", None, &["proc"], &["nosuid"]),
            grant("/data", Some(("8:1", "/v")), &[], &["ro"]),
            grant("/proc/kcore", None, &["tmpfs", "devtmpfs"], &[]),
            grant("/proc/sys", None, &["proc", "sysfs"], &[]),
        ],
        node_devices: ["8:1", "0:6", "0:22"].map(str::to_owned).into(),
        covered: vec![("/proc/kcore".into(), false), ("/proc/sys".into(), true)],
    }
}

/// What a spec says to findings in which the second task was changed.
fn changed(spec: &Spec, change: impl FnOnce(&mut Task)) -> Result<(), Excess> {
    let mut found = findings();
    change(&mut found.tasks[1]);
    verify(spec, &found)
}

fn refused(change: impl FnOnce(&mut Task)) -> Excess {
    changed(&spec_of(&config()), change).unwrap_err()
}

#[test]
fn what_is_as_its_spec_says_may_live() {
    assert_eq!(verify(&spec_of(&config()), &findings()), Ok(()));
}

#[test]
fn less_than_the_spec_is_always_right() {
    let spec = spec_of(&config());
    let less = changed(&spec, |task| {
        (task.permitted, task.effective, task.bounding) = (0, 0, 0);
        task.groups.clear();
        task.filters = Some(4);
        task.label = Some("cri-containerd.apparmor.d//worker (enforce)".into());
    });
    assert_eq!(less, Ok(()));
    assert_eq!(changed(&spec, |task| task.gids = vec![2000; 4]), Ok(()), "one of its groups");
    assert_eq!(changed(&spec, |task| task.filters = None), Ok(()), "an older kernel");
}

#[test]
fn each_of_the_four_ids_and_each_group_counts() {
    for place in 0..4 {
        let error = refused(|task| task.uids[place] = 0);
        assert!(matches!(error, Excess::Id { what: "uid", found: 0, .. }), "{error}");
        let error = refused(|task| task.gids[place] = 0);
        assert!(matches!(error, Excess::Id { what: "gid", found: 0, .. }), "{error}");
    }
    let error = refused(|task| task.groups.push(42));
    assert_eq!(error.to_string(), "process 71 (app) has group 42, and its spec gives no way there");
}

#[test]
fn who_may_set_ids_may_have_any_and_who_can_never_come_to_that_right_may_not() {
    let www = |task: &mut Task| (task.uids, task.gids, task.groups) = (vec![33; 4], vec![33; 4], vec![33]);
    let mut config = config();
    let all = serde_json::json!(["CAP_SETUID", "CAP_SETGID", "CAP_CHOWN", "CAP_NET_BIND_SERVICE"]);
    // Root that may set IDs, as nginx starts its workers.
    config["process"]["user"] = serde_json::json!({"uid": 0, "gid": 0});
    config["process"]["capabilities"] = serde_json::json!({"bounding": all, "permitted": all});
    let root = spec_of(&config);
    assert_eq!(changed(&root, www), Ok(()));
    assert!(verify(&root, &findings()).is_ok(), "and it may have become user 1000");
    // Without these capabilities root stays root.
    config["process"]["capabilities"] =
        serde_json::json!({"bounding": ["CAP_CHOWN", "CAP_NET_BIND_SERVICE"], "permitted": ["CAP_CHOWN"]});
    assert!(changed(&spec_of(&config), www).is_err());
    // Another user comes to them by a set-user-ID program only, which `noNewPrivileges` forbids.
    config["process"]["user"] = serde_json::json!({"uid": 1000, "gid": 1000, "additionalGids": [2000]});
    config["process"]["capabilities"] = serde_json::json!({"bounding": all, "permitted": all});
    assert!(changed(&spec_of(&config), |task| task.uids = vec![0; 4]).is_err());
    config["process"]["noNewPrivileges"] = false.into();
    assert_eq!(changed(&spec_of(&config), |task| task.uids = vec![0; 4]), Ok(()));
}

#[test]
fn no_set_has_a_capability_beyond_the_spec() {
    let net_admin = set(&["CAP_NET_ADMIN".into()]);
    let sets: [(&str, Field); 5] = [
        ("bounding", |task| &mut task.bounding),
        ("permitted", |task| &mut task.permitted),
        ("effective", |task| &mut task.effective),
        ("ambient", |task| &mut task.ambient),
        ("inheritable", |task| &mut task.inheritable),
    ];
    for (name, field) in sets {
        let error = refused(|task| *field(task) |= net_admin);
        let Excess::Capabilities { set, extra, .. } = &error else { panic!("{error}") };
        assert_eq!((*set, extra.as_str()), (name, "CAP_NET_ADMIN"));
        let error = refused(|task| *field(task) |= 1 << 63);
        assert!(matches!(error, Excess::Capabilities { .. }), "one that no kernel knows yet");
    }
    // What is only in the bounding set is had by gaining privileges, or not at all.
    let bind = |task: &mut Task| task.effective |= set(&["CAP_NET_BIND_SERVICE".into()]);
    assert!(matches!(refused(bind), Excess::Capabilities { set: "effective", .. }));
    assert_eq!(changed(&with("/process/noNewPrivileges", false.into()), bind), Ok(()));
}

#[test]
fn privileges_filters_and_labels_must_be_there_where_the_spec_has_them() {
    assert!(matches!(refused(|task| task.no_new_privileges = false), Excess::NewPrivileges { .. }));
    for (mode, filters) in [(0, Some(0)), (1, Some(0)), (0, None), (2, Some(0))] {
        let error = refused(|task| (task.seccomp, task.filters) = (mode, filters));
        assert!(matches!(error, Excess::Seccomp { .. }), "{mode} {filters:?}");
    }
    for label in [None, Some("unconfined"), Some("cri-containerd.apparmor.dx (enforce)"), Some("")] {
        let error = refused(|task| task.label = label.map(str::to_owned));
        assert!(matches!(error, Excess::Label { .. }), "{label:?}");
    }
}

#[test]
fn a_spec_without_them_asks_for_none() {
    let mut config = config();
    config["process"]["noNewPrivileges"] = false.into();
    config["process"]["apparmorProfile"] = "".into();
    config["linux"].as_object_mut().unwrap().remove("seccomp");
    let plain = changed(&spec_of(&config), |task| {
        (task.no_new_privileges, task.seccomp, task.filters, task.label) = (false, 0, Some(0), None);
    });
    assert_eq!(plain, Ok(()));
    // runc makes no filter of a profile that allows everything.
    config["linux"]["seccomp"] = serde_json::json!({"defaultAction": "SCMP_ACT_ALLOW"});
    assert!(!spec_of(&config).has_seccomp);
}

#[test]
fn selinux_labels_are_equal_or_wrong() {
    let mut config = config();
    config["process"]["apparmorProfile"] = "".into();
    config["process"]["selinuxLabel"] = "system_u:system_r:container_t:s0:c1,c2".into();
    let spec = spec_of(&config);
    let labelled = |label: &str| {
        let mut found = findings();
        found.tasks.iter_mut().for_each(|task| task.label = Some(label.to_owned()));
        verify(&spec, &found)
    };
    assert_eq!(labelled("system_u:system_r:container_t:s0:c1,c2"), Ok(()));
    assert!(labelled("system_u:system_r:container_t:s0:c1,c3").is_err());
    assert!(labelled("system_u:system_r:spc_t:s0").is_err());
}

#[test]
fn namespaces_are_the_containers_own_or_the_sandboxs_and_never_the_nodes() {
    for (place, kind) in ["pid", "mnt", "cgroup", "net", "ipc", "uts"].into_iter().enumerate() {
        let of_node = u64::try_from(place).unwrap() + 1;
        for wrong in [of_node, 99] {
            let error = refused(|task| _ = task.namespaces.insert(kind, wrong));
            assert!(
                matches!(&error, Excess::Namespace { kind: found, .. } if *found == kind),
                "{kind} {wrong}"
            );
        }
    }
    // All of them in the node's: being in the same as the first one is no excuse.
    let mut found = findings();
    found.tasks.iter_mut().for_each(|task| _ = task.namespaces.insert("pid", 1));
    assert!(verify(&spec_of(&config()), &found).is_err());
}

#[test]
fn a_namespace_that_the_spec_leaves_to_the_node_is_the_nodes() {
    let mut config = config();
    config["linux"]["namespaces"] = serde_json::json!([{"type": "pid"}, {"type": "mount"}]);
    let shared = |task: &mut Task| task.namespaces = names_of([11, 12, 3, 4, 5, 6]);
    assert_eq!(changed(&spec_of(&config), shared), Ok(()));
    // hostNetwork, as containerd writes it.
    let mut found = findings();
    found.named.insert("net", 4);
    found.tasks.iter_mut().for_each(|task| _ = task.namespaces.insert("net", 4));
    assert_eq!(verify(&spec_of(&super::tests::config()), &found), Ok(()));
}

#[test]
fn who_may_make_namespaces_and_mounts_may_be_in_others_but_not_in_the_nodes() {
    let mut config = config();
    let caps = serde_json::json!(["CAP_SYS_ADMIN", "CAP_CHOWN", "CAP_NET_BIND_SERVICE"]);
    config["process"]["capabilities"] = serde_json::json!({"bounding": caps, "permitted": caps});
    let spec = spec_of(&config);
    assert_eq!(changed(&spec, |task| _ = task.namespaces.insert("net", 99)), Ok(()));
    assert_eq!(changed(&spec, |task| _ = task.namespaces.insert("pid", 99)), Ok(()));
    assert!(changed(&spec, |task| _ = task.namespaces.insert("net", 4)).is_err());
    assert!(changed(&spec, |task| _ = task.namespaces.insert("pid", 1)).is_err());
    let mut found = findings();
    found.mounts[0].push(mount("/mnt", "tmpfs", "0:99", "/", "rw"));
    assert_eq!(verify(&spec, &found), Ok(()));
}

#[test]
fn a_process_outside_its_cgroup_is_refused() {
    let error = refused(|task| task.outside_of = Some("/sys/fs/cgroup/memory/x".into()));
    assert!(matches!(error, Excess::Cgroup { .. }));
}

#[test]
fn mounts_are_where_and_what_the_spec_says() {
    let wrong = [
        mount("/host", "ext4", "8:1", "/", "rw"),
        mount("/data", "ext4", "8:1", "/", "ro"),
        mount("/data", "ext4", "8:2", "/v", "ro"),
        mount("/data", "ext4", "8:1", "/v", "rw"),
        mount("/proc", "proc", "0:51", "/", "rw"),
        mount("/proc", "tmpfs", "0:99", "/", "rw,nosuid"),
        mount("/", "overlay", "0:77", "/", "ro"),
        mount("/", "overlay", "0:50", "/", "rw"),
        mount("/proc/kcore", "tmpfs", "0:22", "/", "ro"),
        mount("/proc/kcore", "devtmpfs", "0:6", "/kmsg", "rw"),
    ];
    for wrong in wrong {
        let mut found = findings();
        found.mounts[0].push(wrong.clone());
        let error = verify(&spec_of(&config()), &found);
        assert!(matches!(error, Err(Excess::Mount { .. })), "{wrong:?}: {error:?}");
        // In a second mount namespace too.
        let mut found = findings();
        found.mounts.push(vec![wrong]);
        assert!(verify(&spec_of(&config()), &found).is_err());
    }
    let mut found = findings();
    found.mounts[0].push(mount("/data", "ext4", "8:1", "/v//deleted", "ro"));
    found.mounts[0].push(mount("/proc/kcore", "tmpfs", "0:99", "/", "ro"));
    assert_eq!(verify(&spec_of(&config()), &found), Ok(()));
}

#[test]
fn what_the_spec_hides_is_hidden() {
    for point in ["/proc/kcore", "/proc/sys"] {
        let mut found = findings();
        found.mounts[0].retain(|mount| mount.point != point);
        assert_eq!(verify(&spec_of(&config()), &found), Err(Excess::Uncovered { path: point.into() }));
    }
    let mut found = findings();
    found.mounts[0][4].options = vec!["rw".into()];
    assert_eq!(verify(&spec_of(&config()), &found), Err(Excess::Uncovered { path: "/proc/sys".into() }));
}

#[test]
fn nothing_found_is_nothing_verified() {
    assert_eq!(verify(&spec_of(&config()), &Findings::default()), Err(Excess::Nothing));
}

#[test]
fn in_a_user_namespace_ids_are_counted_as_the_node_counts() {
    let mut config = config();
    let mapping = serde_json::json!([{"containerID": 0, "hostID": 70000, "size": 65536}]);
    config["linux"]["uidMappings"] = mapping.clone();
    config["linux"]["gidMappings"] = mapping;
    let spec = spec_of(&config);
    assert_eq!((spec.uid, spec.gid, spec.groups.as_slice()), (71000, 71000, [71000, 72000].as_slice()));
}

#[test]
fn mount_tables_are_read_with_names_that_have_blanks_and_more_than_ascii() {
    let text =
        "36 35 98:0 /r\\040x /m\\303\\244 ro,noatime shared:1 - ext4 /dev/sda rw,errors=continue\nnonsense\n";
    let found = mounts::parse(text);
    assert_eq!(found.len(), 1);
    assert_eq!((found[0].id, found[0].device.as_str(), found[0].kind.as_str()), (36, "98:0", "ext4"));
    assert_eq!((found[0].root.as_str(), found[0].point.as_str()), ("/r x", "/mä"));
    assert_eq!(found[0].options, ["ro", "noatime", "rw", "errors=continue"]);
}
