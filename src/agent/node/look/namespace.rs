//! A question asked inside another process's namespace, by a thread of our own that ends with the answer: nobody else
//! notices.

use std::fs::File;
use std::io;
use std::os::fd::AsFd as _;
use std::path::Path;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// `ask` as if by a process of that namespace (`/proc/PID/ns/...`). It must end by itself.
pub fn inside<T: Send + 'static>(
    namespace: &Path,
    kind: LinkNameSpaceType,
    ask: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    let namespace = File::open(namespace)?;
    let asked = std::thread::spawn(move || {
        move_into_link_name_space(namespace.as_fd(), Some(kind))?;
        ask()
    });
    asked.join().unwrap_or_else(|_| Err(io::Error::other("the thread that asked broke off")))
}
