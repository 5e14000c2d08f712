use super::*;

const CRI: &str = "/var/lib/containerd/io.containerd.grpc.v1.cri";

fn load(root: &Path, mounts: &[(&str, &str)]) -> Load {
    let mounts =
        mounts.iter().map(|(to, from)| Mount { destination: to.into(), source: from.into() }).collect();
    let annotations = BTreeMap::from([(POD_UID.to_owned(), "u".to_owned())]);
    let source = Source { id: "ab", config: Config { annotations, mounts }, upper: "/upper".into() };
    Load::found(&Host::at(root), vec![source]).unwrap()
}

#[test]
fn what_belongs_to_the_container_is_found_among_its_mounts() {
    let root = tempfile::tempdir().unwrap();
    let pod = "/var/lib/kubelet/pods/u";
    let (scratch, unused) = (
        format!("{pod}/volumes/kubernetes.io~empty-dir/scratch"),
        format!("{pod}/volumes/kubernetes.io~empty-dir/unused"),
    );
    let (part, claim) =
        (format!("{pod}/volume-subpaths/scratch/app/1"), format!("{pod}/volumes/kubernetes.io~csi/c/mount"));
    let host = Host::at(root.path());
    for folder in [&format!("{scratch}/a/b"), &unused, &claim] {
        fs::create_dir_all(host.path(Path::new(folder))).unwrap();
    }
    // Bind mounts have the inode of what they show.
    let subpaths = host.path(Path::new(&part));
    fs::create_dir_all(subpaths.parent().unwrap()).unwrap();
    std::os::unix::fs::symlink(host.path(Path::new(&format!("{scratch}/a/b"))), &subpaths).unwrap();
    let load = load(
        root.path(),
        &[
            ("/proc", "proc"),
            ("/dev/shm", "/run/containerd/io.containerd.grpc.v1.cri/sandboxes/s/shm"),
            ("/data", &format!("{CRI}/containers/ab/volumes/1")),
            ("/scratch", &scratch),
            ("/part", &part),
            ("/claim", &claim),
            ("/log", &format!("{CRI}/containers/ab/volumes/2")),
        ],
    );
    let facts = &load.members[0].facts;
    assert!(facts.shm);
    assert_eq!(facts.image_volumes, [Path::new("/data"), Path::new("/log")]);
    assert_eq!(facts.empty_dirs, ["scratch", "unused"]);
    let trees: Vec<_> = load.trees.iter().map(|tree| (tree.file.as_str(), tree.root.clone())).collect();
    let at = |path: &str| host.path(Path::new(path));
    assert_eq!(
        trees,
        [
            ("volumes/scratch.tar", at(&scratch)),
            ("volumes/unused.tar", at(&unused)),
            ("rootfs.tar", "/upper".into()),
            ("shm.tar", at("/run/containerd/io.containerd.grpc.v1.cri/sandboxes/s/shm")),
            ("image-volumes/0.tar", at(&format!("{CRI}/containers/ab/volumes/1"))),
            ("image-volumes/1.tar", at(&format!("{CRI}/containers/ab/volumes/2"))),
        ]
    );
    let of = |file: &str| {
        let found = load.tree_of(&load.members[0], Path::new(file));
        found.map(|(_, tree, name)| (tree.file.clone(), name.display().to_string()))
    };
    let is = |file: &str, name: &str| Some((file.to_owned(), name.to_owned()));
    assert_eq!(of("/tmp/link_remap.1"), is("rootfs.tar", "tmp/link_remap.1"));
    assert_eq!(of("/data/d/link_remap.1"), is("image-volumes/0.tar", "d/link_remap.1"));
    assert_eq!(of("/dev/shm/link_remap.1"), is("shm.tar", "link_remap.1"));
    assert_eq!(of("/scratch/a/link_remap.1"), is("volumes/scratch.tar", "a/link_remap.1"));
    assert_eq!(of("/part/link_remap.1"), is("volumes/scratch.tar", "a/b/link_remap.1"));
    assert_eq!(of("/claim/link_remap.1"), None);
}

#[test]
fn what_is_of_the_pod_is_carried_once_however_many_containers_show_it() {
    let root = tempfile::tempdir().unwrap();
    let scratch = "/var/lib/kubelet/pods/u/volumes/kubernetes.io~empty-dir/scratch";
    let host = Host::at(root.path());
    fs::create_dir_all(host.path(Path::new(scratch))).unwrap();
    let shm = "/run/containerd/io.containerd.grpc.v1.cri/sandboxes/s/shm";
    let source = |id: &'static str, upper: &str, mounts: &[(&str, &str)]| {
        let mounts =
            mounts.iter().map(|(to, from)| Mount { destination: to.into(), source: from.into() }).collect();
        let annotations = BTreeMap::from([(POD_UID.to_owned(), "u".to_owned())]);
        Source { id, config: Config { annotations, mounts }, upper: upper.into() }
    };
    let of_image = format!("{CRI}/containers/cd/volumes/1");
    let load = Load::found(
        &host,
        vec![
            source("ab", "/one", &[("/own", scratch)]),
            source("cd", "/two", &[("/logs", scratch), ("/dev/shm", shm), ("/data", &of_image)]),
            source("ef", "/three", &[("/dev/shm", shm)]),
        ],
    )
    .unwrap();
    let files: Vec<_> = load.trees.iter().map(|tree| tree.file.as_str()).collect();
    assert_eq!(
        files,
        [
            "volumes/scratch.tar",
            "rootfs.tar",
            "containers/0/rootfs.tar",
            "shm.tar",
            "containers/0/image-volumes/0.tar",
            "containers/1/rootfs.tar",
        ]
    );
    let tree = |member: usize, file: &str| {
        load.tree_of(&load.members[member], Path::new(file)).map(|(_, tree, _)| tree.file.clone())
    };
    assert_eq!(tree(0, "/own/x").as_deref(), Some("volumes/scratch.tar"));
    assert_eq!(tree(1, "/logs/x").as_deref(), Some("volumes/scratch.tar"));
    assert_eq!(tree(2, "/dev/shm/x").as_deref(), Some("shm.tar"));
    assert_eq!(tree(2, "/logs/x").as_deref(), Some("containers/1/rootfs.tar"));
    assert_eq!(load.members.iter().map(|one| one.facts.shm).collect::<Vec<_>>(), [false, true, true]);
    assert_eq!((load.empty_dirs(), load.folder(2)), (&["scratch".to_owned()][..], Path::new("containers/1")));
}

#[test]
fn a_part_of_a_volume_that_is_no_folder_is_named() {
    let root = tempfile::tempdir().unwrap();
    let pod = "/var/lib/kubelet/pods/u";
    let part = format!("{pod}/volume-subpaths/conf/app/0");
    let host = Host::at(root.path());
    let volume = host.path(Path::new(&format!("{pod}/volumes/kubernetes.io~empty-dir/conf")));
    fs::create_dir_all(&volume).unwrap();
    fs::write(volume.join("app.conf"), "").unwrap();
    fs::create_dir_all(host.path(Path::new(&part)).parent().unwrap()).unwrap();
    std::os::unix::fs::symlink(volume.join("app.conf"), host.path(Path::new(&part))).unwrap();
    let mounts = vec![Mount { destination: "/app.conf".into(), source: part.into() }];
    let annotations = BTreeMap::from([(POD_UID.to_owned(), "u".to_owned())]);
    let source = Source { id: "ab", config: Config { annotations, mounts }, upper: "/upper".into() };
    let found = Load::found(&host, vec![source]);
    let told = found.unwrap_err().to_string();
    assert!(told.starts_with("/app.conf shows a part of emptyDir volume conf"), "{told}");
}
