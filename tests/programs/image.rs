//! The image with all programs, on every node: it is large, so only where it is not there yet.

use std::io::Read as _;
use std::path::PathBuf;

use crate::lab::{Cluster, Result, fail};

pub const PROGRAMS: &str = "localhost/programs:1";
/// The same files; `/var/lib/postgresql` and `/home/app` are VOLUMEs.
pub const WITH_VOLUMES: &str = "localhost/programs-volume:1";
const ARCHIVE: &str = "target/image/programs.tar";

pub async fn ensure(cluster: &Cluster) -> Result {
    let archive = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(ARCHIVE);
    let wanted = format!("sha256:{}", id(&archive)?);
    for node in &cluster.nodes {
        let known = cluster.exec(node, &["ctr", "-n", "k8s.io", "images", "ls", "-q"]).await?;
        if !known.stdout.lines().any(|name| name == wanted) {
            return cluster.load_images(&[&archive]).await;
        }
    }
    Ok(())
}

/// `cluster image` puts the configuration first, and its name is what engines call the image.
fn id(archive: &std::path::Path) -> Result<String> {
    let mut head = [0; 100];
    let read = std::fs::File::open(archive).and_then(|mut file| file.read_exact(&mut head));
    read.map_err(|error| format!("{}: {error}: make programs-image", archive.display()))?;
    let name = String::from_utf8_lossy(&head);
    match name.split_once(".json") {
        Some((id, _)) if id.len() == 64 => Ok(id.to_owned()),
        _ => fail(format!("{} does not begin with an image's configuration", archive.display())),
    }
}
