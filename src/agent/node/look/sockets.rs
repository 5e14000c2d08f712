//! Sockets of a container: the kernel's tables of its network namespace, and what each descriptor's protocol means. Pure.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::api::SocketKind;

/// Tables in `/proc/PID/net` that show addresses.
pub const TABLES: [&str; 6] = ["net/tcp", "net/tcp6", "net/udp", "net/udp6", "net/udplite", "net/udplite6"];
/// State of a listener in them.
const LISTENS: &str = "0A";

/// A row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    pub local: SocketAddr,
    pub peer: SocketAddr,
    pub listens: bool,
}

/// Rows by inode. Lines that are not understood are left out.
pub fn rows(table: &str) -> HashMap<u64, Row> {
    table.lines().skip(1).filter_map(row).collect()
}

fn row(line: &str) -> Option<(u64, Row)> {
    let mut fields = line.split_whitespace().skip(1);
    let (local, peer) = (address(fields.next()?)?, address(fields.next()?)?);
    let listens = fields.next()? == LISTENS;
    // Queues, timer, retransmits, uid and timeout.
    let inode = fields.nth(5)?.parse().ok()?;
    Some((inode, Row { local, peer, listens }))
}

/// `0100007F:1F90`: words of the machine's byte order, then the port.
fn address(text: &str) -> Option<SocketAddr> {
    let (ip, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let word = |at: usize| Some(u32::from_str_radix(ip.get(at * 8..at * 8 + 8)?, 16).ok()?.to_ne_bytes());
    let ip = match ip.len() {
        8 => IpAddr::V4(Ipv4Addr::from(word(0)?)),
        32 => {
            let mut bytes = [0; 16];
            for (at, four) in bytes.chunks_exact_mut(4).enumerate() {
                four.copy_from_slice(&word(at)?);
            }
            IpAddr::V6(Ipv6Addr::from(bytes))
        }
        _ => return None,
    };
    Some(SocketAddr::new(ip, port))
}

/// What a socket of that protocol is; nothing for one that moves like any other.
pub fn kind(protocol: &str, row: Option<&Row>) -> Option<SocketKind> {
    match protocol {
        "MPTCP" | "MPTCPv6" => Some(SocketKind::Mptcp),
        "TCP" | "TCPv6" => {
            row.filter(|row| row.listens && is_specific(row.local)).map(|_| SocketKind::OwnAddress)
        }
        "UDP" | "UDPv6" | "UDP-Lite" | "UDPLITEv6" => {
            row.filter(|row| is_specific(row.local)).map(|_| SocketKind::OwnAddress)
        }
        "RAW" | "RAWv6" => Some(SocketKind::Raw),
        "PACKET" => Some(SocketKind::Packet),
        "NETLINK" => None,
        unix if unix.starts_with("UNIX") => None,
        _ => Some(SocketKind::Unknown),
    }
}

/// Only the pod itself has it, and the next pod another.
fn is_specific(address: SocketAddr) -> bool {
    let ip = address.ip().to_canonical();
    !ip.is_unspecified() && !ip.is_loopback()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TCP: &str = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
        \x20  0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 41 1 0 100 0 0 10 0\n\
        \x20  1: 0701F40A:1F91 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 42 1 0 100 0 0 10 0\n\
        \x20  2: 0701F40A:1F91 0A00C80A:8000 01 00000000:00000000 00:00000000 00000000     0        0 43 1 0 20 4 30 10 -1\n\
        not a row\n";
    const TCP6: &str = "  sl  local_address                         remote_address                        st tx_queue rx_queue\n\
        \x20  0: 00000000000000000000000000000000:4A37 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 \
        00000000     0        0 73225 2 0 100 0 0 10 0\n\
        \x20  1: 0000000000000000FFFF00000701F40A:0050 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 \
        00000000     0        0 44 2 0 100 0 0 10 0\n";

    #[test]
    fn rows_are_found_by_inode_with_their_addresses() {
        let (four, six) = (rows(TCP), rows(TCP6));
        assert_eq!(four.len(), 3);
        assert_eq!(four[&42].local, "10.244.1.7:8081".parse().unwrap());
        assert_eq!(four[&43].peer, "10.200.0.10:32768".parse().unwrap());
        assert!(four[&42].listens && !four[&43].listens);
        assert_eq!(six[&73225].local, "[::]:18999".parse().unwrap());
        assert_eq!(six[&44].local, "[::ffff:10.244.1.7]:80".parse().unwrap());
    }

    #[test]
    fn listeners_on_an_address_of_the_pod_are_told_and_those_on_any_or_loopback_are_not() {
        let (four, six) = (rows(TCP), rows(TCP6));
        assert_eq!(kind("TCP", four.get(&41)), None);
        assert_eq!(kind("TCP", four.get(&42)), Some(SocketKind::OwnAddress));
        assert_eq!(kind("TCP", four.get(&43)), None, "a connection is closed, not carried");
        assert_eq!(kind("TCPv6", six.get(&44)), Some(SocketKind::OwnAddress), "mapped");
        assert_eq!(kind("TCPv6", six.get(&73225)), None);
        assert_eq!(kind("TCP", None), None);
    }

    #[test]
    fn a_connected_udp_socket_is_bound_to_the_pods_address_without_asking() {
        let udp = "  sl  local_address rem_address   st\n  77: 0701F40A:B1B1 0A00C80A:1FBD 01 00000000:00000000 00:00000000 \
            00000000     0        0 55 2 0 0\n";
        assert_eq!(kind("UDP", rows(udp).get(&55)), Some(SocketKind::OwnAddress));
    }

    #[test]
    fn the_protocol_decides_for_all_others() {
        for (protocol, expected) in [
            ("MPTCPv6", Some(SocketKind::Mptcp)),
            ("MPTCP", Some(SocketKind::Mptcp)),
            ("PING", Some(SocketKind::Unknown)),
            ("SCTP", Some(SocketKind::Unknown)),
            ("AF_VSOCK", Some(SocketKind::Unknown)),
            ("XDP", Some(SocketKind::Unknown)),
            ("RAWv6", Some(SocketKind::Raw)),
            ("PACKET", Some(SocketKind::Packet)),
            ("UNIX", None),
            ("UNIX-STREAM", None),
            ("NETLINK", None),
        ] {
            assert_eq!(kind(protocol, None), expected, "{protocol}");
        }
    }
}
