//! What a look keeps: so many of each kind, the first that were seen, and the number of the others. Pure but for [`Kept::tree`].

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Instant;

use super::process::Process;
use super::sizes;
use crate::api::{
    Entangled, Findings, FoundDescriptor, FoundMount, FoundSocket, FoundTree, ProcessName, Visitor,
};

/// Of each kind.
const LISTED: usize = 16;
/// Characters of an object's name.
const NAME: usize = 120;
/// Sentences about what was left out.
const SENTENCES: usize = 16;

/// Findings under way.
#[derive(Default)]
pub struct Kept {
    pub findings: Findings,
    more: BTreeMap<String, usize>,
}

impl Kept {
    pub fn count(&mut self, process: &Process) {
        let (findings, memory) = (&mut self.findings, &process.memory);
        findings.processes += 1;
        findings.threads += process.threads;
        let sums = &mut findings.memory;
        sums.anonymous += memory.anonymous;
        sums.shared += memory.shared;
        sums.swapped += memory.swapped;
        sums.huge += memory.huge;
        sums.locked += memory.locked;
    }

    pub fn socket(&mut self, mut socket: FoundSocket) {
        shorten(&mut socket.owner);
        let kind = socket.kind;
        let listed = self.findings.sockets.iter().filter(|known| known.kind == kind).count();
        if listed < LISTED {
            self.findings.sockets.push(socket);
        } else {
            self.one_more(format!("sockets ({kind:?})"));
        }
    }

    /// The same object of the same process once.
    pub fn descriptor(&mut self, mut found: FoundDescriptor) {
        shorten(&mut found.owner);
        found.object = found.object.chars().take(NAME).collect();
        let kind = found.kind;
        let of_kind = || self.findings.descriptors.iter().filter(|known| known.kind == kind);
        if of_kind().any(|known| known.object == found.object && known.owner == found.owner) {
            return;
        }
        if of_kind().count() < LISTED {
            self.findings.descriptors.push(found);
        } else {
            self.one_more(format!("open files ({kind:?})"));
        }
    }

    pub fn visitor(&mut self, visitor: Visitor) {
        if self.findings.visitors.len() < LISTED {
            self.findings.visitors.push(visitor);
        } else {
            self.one_more("processes from outside".to_owned());
        }
    }

    pub fn entangled(&mut self, found: Entangled) {
        if self.findings.entangled.len() < LISTED {
            self.findings.entangled.push(found);
        } else {
            self.one_more("traced or sandboxed processes".to_owned());
        }
    }

    pub fn mount(&mut self, mut mount: FoundMount) {
        mount.destination = mount.destination.chars().take(NAME).collect();
        if self.findings.mounts.len() < LISTED {
            self.findings.mounts.push(mount);
        } else {
            self.one_more("mounts".to_owned());
        }
    }

    /// Counts files; nothing where there was no time to count them all.
    pub fn tree(&mut self, folder: &Path, names: usize, deadline: Instant) -> Option<FoundTree> {
        let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
        match sizes::tree(folder, names, deadline) {
            Ok((found, all)) => all.then_some(found),
            Err(error) => {
                self.left_out(format!("files below {name}: {error}"));
                None
            }
        }
    }

    pub fn left_out(&mut self, what: String) {
        if self.findings.left_out.len() < SENTENCES && !self.findings.left_out.contains(&what) {
            self.findings.left_out.push(what);
        }
    }

    fn one_more(&mut self, what: String) {
        *self.more.entry(what).or_default() += 1;
    }

    pub fn finish(mut self) -> Findings {
        for (what, count) in std::mem::take(&mut self.more) {
            self.findings.left_out.push(format!("{count} more {what}"));
        }
        self.findings
    }
}

fn shorten(owner: &mut ProcessName) {
    owner.name = owner.name.chars().take(NAME).collect();
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::DescriptorKind;

    #[test]
    fn so_many_of_each_kind_are_kept_and_the_others_counted() {
        let mut kept = Kept::default();
        let of = |kind, at: usize| FoundDescriptor {
            kind,
            object: format!("/tmp/{at}"),
            bytes: None,
            owner: ProcessName { pid: 1, name: "app".into() },
        };
        for at in 0..LISTED + 5 {
            kept.descriptor(of(DescriptorKind::Deleted, at));
            kept.descriptor(of(DescriptorKind::Deleted, at.min(3)));
        }
        kept.descriptor(of(DescriptorKind::IoUring, 1));
        let found = kept.finish();
        assert_eq!(found.descriptors.len(), LISTED + 1, "another kind has its own room");
        assert_eq!(found.left_out, ["5 more open files (Deleted)"]);
    }
}
