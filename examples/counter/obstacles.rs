//! What stands against a move, held for as long as the program runs, so that a test can see each refused by its name.

use std::any::Any;
use std::error::Error;
use std::net::{Ipv6Addr, SocketAddrV6};

use io_uring::IoUring;
use rustix::fs::inotify;
use rustix::net::{AddressFamily, SocketType, bind, ipproto, listen, socket};

/// Kept open, never used.
pub type Held = Box<dyn Any + Send>;

/// `mptcp`, `io_uring`, `inotify`, `vsock`, `ping`, `raw`; several with commas.
pub fn hold(names: &str) -> Result<Vec<Held>, Box<dyn Error>> {
    names.split(',').filter(|name| !name.is_empty()).map(one).collect()
}

fn one(name: &str) -> Result<Held, Box<dyn Error>> {
    let descriptor = match name {
        "mptcp" => {
            let listener = socket(AddressFamily::INET6, SocketType::STREAM, Some(ipproto::MPTCP))?;
            bind(&listener, &SocketAddrV6::new(Ipv6Addr::UNSPECIFIED, 9090, 0, 0))?;
            listen(&listener, 8)?;
            listener
        }
        "vsock" => socket(AddressFamily::VSOCK, SocketType::STREAM, None)?,
        "ping" => socket(AddressFamily::INET, SocketType::DGRAM, Some(ipproto::ICMP))?,
        "raw" => socket(AddressFamily::INET, SocketType::RAW, Some(ipproto::ICMP))?,
        "inotify" => {
            let watches = inotify::init(inotify::CreateFlags::CLOEXEC)?;
            inotify::add_watch(&watches, "/counter", inotify::WatchFlags::MODIFY)?;
            watches
        }
        "io_uring" => return Ok(Box::new(IoUring::new(8)?)),
        _ => return Err(format!("no obstacle is called {name:?}").into()),
    };
    Ok(Box::new(descriptor))
}
