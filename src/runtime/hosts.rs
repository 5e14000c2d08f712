//! The pod's address, from the hosts file that the kubelet wrote for it. Pure.

/// Address of the pod called `hostname`. Nothing for a file that the kubelet does not manage, for the host's network,
/// and where no line certainly is the pod's.
pub fn pod_ip(hosts: &str, hostname: &str) -> Option<String> {
    let first = hosts.lines().next()?.trim();
    if hostname.is_empty() || first != "# Kubernetes-managed hosts file." {
        return None;
    }
    hosts
        .lines()
        // What follows is the user's, and could name the pod too.
        .take_while(|line| !line.starts_with("# Entries added by HostAliases"))
        .filter(|line| !line.starts_with('#'))
        .find_map(|line| {
            let mut words = line.split_whitespace();
            let address: std::net::IpAddr = words.next()?.parse().ok()?;
            let is_pods = !address.is_loopback() && words.any(|name| name == hostname);
            is_pods.then(|| address.to_string())
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOSTS: &str = "# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost\n\
        fe00::0\tip6-localnet\n10.201.2.5\tweb-0.web.default.svc.cluster.local\tweb-0\nfd00::5\tweb-0\n";

    #[test]
    fn the_pods_own_line_gives_its_address() {
        assert_eq!(pod_ip(HOSTS, "web-0").as_deref(), Some("10.201.2.5"));
    }

    #[test]
    fn an_alias_of_the_user_is_not_the_pod() {
        let hosts = "# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n\n\
            # Entries added by HostAliases.\n1.2.3.4\tweb-0\n";
        assert_eq!(pod_ip(hosts, "web-0"), None);
    }

    #[test]
    fn a_file_of_someone_else_says_nothing() {
        for hosts in [
            "",
            "10.0.0.1 web-0\n",
            "# Kubernetes-managed hosts file (host network).\n10.0.0.1 web-0\n",
            "# Kubernetes-managed hosts file.\nx web-0\n",
        ] {
            assert_eq!(pod_ip(hosts, "web-0"), None, "{hosts}");
        }
        assert_eq!(pod_ip(HOSTS, "localhost"), None);
        assert_eq!(pod_ip(HOSTS, ""), None);
    }
}
