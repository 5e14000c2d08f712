//! Addresses that the sockets of a process may be bound to. Reads `/proc`.

use std::fs;
use std::io::ErrorKind;
use std::net::IpAddr;
use std::path::Path;

use super::CarryError;
use crate::criu::of_namespace;

/// Of a process's network namespace.
pub fn addresses(proc: &Path, pid: u32) -> Result<Vec<IpAddr>, CarryError> {
    let net = proc.join(pid.to_string()).join("net");
    let read = |name: &str| {
        let path = net.join(name);
        match fs::read_to_string(&path) {
            // A kernel without IPv6.
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(String::new()),
            read => read.map_err(|source| CarryError::Io { path, source }),
        }
    };
    Ok(of_namespace(&read("fib_trie")?, &read("if_inet6")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_those_of_the_process_s_network() {
        let proc = tempfile::tempdir().unwrap();
        assert!(addresses(proc.path(), 7).unwrap().is_empty());
        fs::create_dir_all(proc.path().join("7/net")).unwrap();
        fs::write(proc.path().join("7/net/fib_trie"), "  |-- 10.0.0.7\n  /32 host LOCAL\n").unwrap();
        assert_eq!(addresses(proc.path(), 7).unwrap(), ["10.0.0.7".parse::<IpAddr>().unwrap()]);
    }
}
