//! What a pod has written to volumes that outlive it is there before its dump counts: whoever mounts them next may be another
//! machine, and what its kernel read from their disks is what the restored processes find. Does I/O.
//!
//! Guarantees: a volume that cannot be written out, or not in time, is an error that names it; the node's own disk is left
//! alone.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::{Instant, timeout_at};

use super::carry::Located;
use crate::agent::failure::Failure;
use crate::agent::node::containers::POD_UID;
use crate::agent::node::host::Host;
use crate::agent::node::look::mounts::Config;
use crate::api::{Refusal, pod_folder};

/// A server that is restarted has answered by then; what stands still so long for nothing is better let go.
const LIMIT: Duration = Duration::from_secs(30);
/// The kubelet's folders of what it mounts for a pod, below the pod's own.
const MOUNTED: [&str; 2] = ["volumes", "volume-subpaths"];

/// Writes out the file systems of all volumes that these containers mount.
pub async fn synced(host: &Host, located: &[Located], deadline: Instant) -> Result<(), Failure> {
    let bundles: Vec<PathBuf> = located.iter().map(|one| one.container.bundle.clone()).collect();
    let (host, at) = (host.clone(), Arc::new(Mutex::new(PathBuf::new())));
    let written = tokio::task::spawn_blocking({
        let at = Arc::clone(&at);
        move || {
            let sources = sources(&host, &bundles)?;
            for source in file_systems(&host, &sources, |source| source.clone_into(&mut at.lock()))?.values()
            {
                source.clone_into(&mut at.lock());
                let folder = File::open(host.path(source)).map_err(|error| failed(source, &error))?;
                rustix::fs::syncfs(&folder).map_err(|error| failed(source, &error.into()))?;
            }
            Ok::<_, Failure>(())
        }
    });
    match timeout_at(deadline.min(Instant::now() + LIMIT), written).await {
        Ok(Ok(written)) => written,
        Ok(Err(error)) => Err(Failure::new(Refusal::RuntimeFailed, error.to_string())),
        // Not the dump's fault, nor its line's. Whoever hangs there goes on by itself.
        Err(_) => Err(failed(&at.lock(), &io::ErrorKind::TimedOut.into())),
    }
}

fn failed(at: &Path, error: &io::Error) -> Failure {
    Failure::new(Refusal::RuntimeFailed, format!("{}: {error}: the volume is not written out", at.display()))
}

/// A source of mounts, and the pod's folder.
type Source = (PathBuf, PathBuf);

/// What the kubelet has mounted for the pod, by the bundles.
fn sources(host: &Host, bundles: &[PathBuf]) -> Result<Vec<Source>, Failure> {
    let mut found = Vec::new();
    for bundle in bundles {
        let path = bundle.join("config.json");
        let text = fs::read(host.path(&path)).map_err(|error| failed(&path, &error))?;
        let config: Config =
            serde_json::from_slice(&text).map_err(|error| failed(&path, &io::Error::from(error)))?;
        let Some(pod) = config.annotations.get(POD_UID) else { continue };
        for mount in config.mounts {
            let Some(folder) = pod_folder(&mount.source, pod) else { continue };
            if MOUNTED.iter().any(|below| mount.source.starts_with(folder.join(below))) {
                found.push((mount.source, folder));
            }
        }
    }
    Ok(found)
}

/// One source of each file system that is not the node's own.
fn file_systems(
    host: &Host,
    sources: &[Source],
    looks_at: impl Fn(&Path),
) -> Result<BTreeMap<u64, PathBuf>, Failure> {
    let device = |path: &Path| fs::metadata(host.path(path)).map(|metadata| metadata.dev());
    let mut found = BTreeMap::new();
    for (source, pod) in sources {
        looks_at(source);
        let of = device(source).map_err(|error| failed(source, &error))?;
        if of != device(pod).map_err(|error| failed(pod, &error))? {
            found.entry(of).or_insert_with(|| source.clone());
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_file_systems_that_the_kubelet_mounted_are_written_out() {
        let node = tempfile::tempdir().unwrap();
        let host = Host::at(node.path());
        let pod = "/var/lib/kubelet/pods/u1";
        let own = format!("{pod}/volumes/kubernetes.io~empty-dir/tmp");
        fs::create_dir_all(host.path(Path::new(&own))).unwrap();
        fs::create_dir_all(host.path(Path::new("/bundle"))).unwrap();
        // Of another device than the folder: the test machine's /proc.
        let mounted = format!("{pod}/volumes/kubernetes.io~csi");
        std::os::unix::fs::symlink("/proc", host.path(Path::new(&mounted))).unwrap();
        let mount = |source: &str| json!({ "destination": "/x", "source": source });
        let config = json!({ "annotations": { POD_UID: "u1" }, "mounts": [mount(&own), mount(&mounted),
            mount(&mounted), mount("/etc/hosts"), mount(&format!("{pod}/etc-hosts"))] });
        fs::write(host.path(Path::new("/bundle/config.json")), config.to_string()).unwrap();
        let sources = sources(&host, &["/bundle".into()]).unwrap();
        assert_eq!(sources.len(), 3, "{sources:?}");
        let found: Vec<_> = file_systems(&host, &sources, |_| ()).unwrap().into_values().collect();
        assert_eq!(found, [PathBuf::from(mounted)]);
    }

    #[tokio::test]
    async fn what_cannot_be_written_out_is_named() {
        let node = tempfile::tempdir().unwrap();
        let host = Host::at(node.path());
        assert!(synced(&host, &[], Instant::now() + LIMIT).await.is_ok());
        let error = sources(&host, &["/none".into()]).unwrap_err();
        assert!(error.message.contains("/none/config.json"), "{error}");
    }
}
