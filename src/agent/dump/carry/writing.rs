//! Writes what a pod carries into the folder of a dump, while it stands still. Does I/O.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::process::Pid;
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::Instant;

use super::load::Load;
use super::{CarryError, Tree, links, tree};
use crate::agent::failure::Failure;
use crate::agent::store::{self, Durability};
use crate::agent::transfer::archive::IMAGES;
use crate::api::{CARRIED_FILE, Refusal};

impl Load {
    /// Begins to write all trees into the folder of a dump, at the same time. The containers must stand still.
    pub fn write(self: &Arc<Self>, dir: &Path) -> Writing {
        let begun = Instant::now();
        let folders: BTreeSet<PathBuf> =
            self.trees.iter().filter_map(|tree| dir.join(&tree.file).parent().map(Path::to_owned)).collect();
        let made = folders.into_iter().try_for_each(|path| {
            let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(&path);
            made.map_err(|source| CarryError::Io { path, source })
        });
        let writers = (0..self.trees.len()).map(|number| {
            let (load, dir) = (Arc::clone(self), dir.to_owned());
            spawn_blocking(move || {
                let Tree { root, kind, file, .. } = &load.trees[number];
                Ok((tree::write(root, *kind, &dir.join(file))?, begun.elapsed()))
            })
        });
        Writing { load: Arc::clone(self), dir: dir.to_owned(), made, writers: writers.collect() }
    }
}

/// Trees that are being written.
#[must_use = "the writers go on by themselves"]
pub struct Writing {
    load: Arc<Load>,
    dir: PathBuf,
    made: Result<(), CarryError>,
    writers: Vec<JoinHandle<Result<(tree::Open, Duration), CarryError>>>,
}

/// Trees that are written but for what is known only when CRIU has ended.
pub struct Written {
    load: Arc<Load>,
    dir: PathBuf,
    open: Vec<tree::Open>,
    /// How long the slowest took.
    pub took: Duration,
}

impl Writing {
    /// Waits for all of them, also where one fails.
    pub async fn written(self) -> Result<Written, Failure> {
        let (mut open, mut took, mut failed) =
            (Vec::new(), Duration::ZERO, self.made.err().map(Failure::from));
        for writer in self.writers {
            match writer.await {
                Ok(Ok((tree, time))) => {
                    open.push(tree);
                    took = took.max(time);
                }
                Ok(Err(error)) => failed = failed.or(Some(error.into())),
                Err(error) => {
                    failed = failed.or(Some(Failure::new(Refusal::RuntimeFailed, error.to_string())));
                }
            }
        }
        match failed {
            Some(failure) => Err(failure),
            None => Ok(Written { load: self.load, dir: self.dir, open, took }),
        }
    }
}

impl Written {
    /// Adds what CRIU's images ask for and ends the files. The containers must still stand still, with these processes.
    pub async fn finish(self, pids: Vec<Vec<Pid>>) -> Result<(), Failure> {
        let finished = spawn_blocking(move || self.finish_blocking(&pids)).await;
        finished.map_err(|error| Failure::new(Refusal::RuntimeFailed, error.to_string()))?
    }

    fn finish_blocking(mut self, pids: &[Vec<Pid>]) -> Result<(), Failure> {
        for (member, pids) in self.load.members.iter().zip(pids) {
            let images = self.dir.join(&member.folder).join(IMAGES);
            links::add(&images, pids, |file| self.load.tree_of(member, file), &mut self.open)?;
        }
        for tree in self.open {
            tree.finish().map_err(CarryError::from)?;
        }
        for member in &self.load.members {
            let path = self.dir.join(&member.folder).join(CARRIED_FILE);
            store::write(&path, &member.facts, Durability::Process)?;
        }
        Ok(())
    }
}
