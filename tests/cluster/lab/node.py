"""A node: containerd with runc, the kubelet, kube-proxy, CNI, CRIU.

Guarantees: laid out like an ordinary node, so that what works here works there: containerd
reads drop-ins from /etc/containerd/conf.d, CRIU's settings for runc are in /etc/criu, and
where systemd would restart containerd after it ended, the node's supervisor does.
"""
from __future__ import annotations

import json
from pathlib import Path

from . import api, disk, images, pki
from .config import API, DNS_IP, DOMAIN, NODE_DISK, PATIENCE, PAUSE_IMAGE, POD_NETWORK, UNPACKED_IMAGES, node_ip, pod_cidr
from .machine import Machine, Service
from .run import run

ETC = "/etc/kubernetes"
SOCKET = "/run/containerd/containerd.sock"
CONTAINERD_ROOT = "/var/lib/containerd"
READY = f"{API}/readyz"

CONTAINERD = f"""version = 3
imports = ['/etc/containerd/conf.d/*.toml']

[plugins.'io.containerd.cri.v1.images']
  snapshotter = 'overlayfs'
  [plugins.'io.containerd.cri.v1.images'.pinned_images]
    sandbox = '{PAUSE_IMAGE}'

[plugins.'io.containerd.cri.v1.runtime']
  restrict_oom_score_adj = true
  [plugins.'io.containerd.cri.v1.runtime'.cni]
    bin_dirs = ['/usr/lib/cni']
    conf_dir = '/etc/cni/net.d'
  [plugins.'io.containerd.cri.v1.runtime'.containerd]
    default_runtime_name = 'runc'
    [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]
      runtime_type = 'io.containerd.runc.v2'
      [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]
        SystemdCgroup = false
"""


def kubelet_config(name: str) -> str:
    return f"""apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
authentication:
  anonymous: {{enabled: false}}
  webhook: {{enabled: true}}
  x509: {{clientCAFile: {ETC}/ca.crt}}
authorization: {{mode: Webhook}}
tlsCertFile: {ETC}/kubelet.crt
tlsPrivateKeyFile: {ETC}/kubelet.key
containerRuntimeEndpoint: unix://{SOCKET}
cgroupDriver: cgroupfs
cgroupRoot: /{Machine(name).group}
failCgroupV1: false
failSwapOn: false
resolvConf: /etc/resolv.conf
clusterDNS: [{DNS_IP}]
clusterDomain: {DOMAIN}
nodeStatusUpdateFrequency: {4 * PATIENCE:.0f}s
nodeLeaseDurationSeconds: {20 * PATIENCE:.0f}
maxPods: 110
kubeAPIQPS: 100
kubeAPIBurst: 200
eventRecordQPS: 100
eventBurst: 200
serializeImagePulls: false
evictionHard: {{memory.available: 100Mi, nodefs.available: 1%, imagefs.available: 1%}}
imageGCHighThresholdPercent: 100
imageGCLowThresholdPercent: 99
shutdownGracePeriod: 0s
"""


def proxy_files(ip: str) -> dict[str, str]:
    """What kube-proxy needs; changes of endpoints are to be in force at once."""
    config = f"""apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
clientConnection: {{kubeconfig: {ETC}/kube-proxy.kubeconfig, qps: 100, burst: 200}}
clusterCIDR: {POD_NETWORK}
bindAddress: {ip}
mode: iptables
iptables: {{minSyncPeriod: 10ms, syncPeriod: 30s}}
conntrack: {{maxPerCore: 0, min: 0}}
"""
    return {f"{ETC}/kube-proxy.yaml": config, f"{ETC}/kube-proxy.kubeconfig": pki.kubeconfig(pki.PROXY)}


def proxy(node: str) -> Service:
    """kube-proxy insists on being on a node and waits for that node to exist."""
    return Service("kube-proxy", ["kube-proxy", f"--config={ETC}/kube-proxy.yaml", f"--hostname-override={node}"], [READY])


def cni(name: str) -> str:
    """Each pod hangs on the node by a cable of its own and everything is routed."""
    plugin = {"type": "ptp", "ipMasq": False, "ipam": {
        "type": "host-local", "ranges": [[{"subnet": pod_cidr(name)}]], "routes": [{"dst": "0.0.0.0/0"}],
        "dataDir": "/run/cni/addresses"}}
    return json.dumps({"cniVersion": "1.0.0", "name": "pods", "plugins": [plugin]}, indent=1)


def create(name: str, layers: list[Path]) -> Machine:
    machine, who = Machine(name), pki.kubelet(name)
    files = {
        "/etc/containerd/config.toml": CONTAINERD,
        "/etc/containerd/conf.d/.keep": "",
        "/etc/criu/.keep": "",
        "/etc/cni/net.d/10-pods.conflist": cni(name),
        "/etc/resolv.conf": f"nameserver {DNS_IP}\n",
        f"{ETC}/kubelet.yaml": kubelet_config(name),
        f"{ETC}/kubelet.kubeconfig": pki.kubeconfig(who),
        f"{ETC}/ca.crt": pki.CA.certificate.read_text(),
        f"{ETC}/kubelet.crt": who.certificate.read_text(),
        f"{ETC}/kubelet.key": who.key.read_text(),
        **proxy_files(node_ip(name)),
    }
    machine.create(layers, files, [CONTAINERD_ROOT, "/var/lib/kubelet", NODE_DISK], [
        Service("containerd", ["containerd"]),
        Service("kubelet", ["kubelet", f"--config={ETC}/kubelet.yaml", f"--kubeconfig={ETC}/kubelet.kubeconfig",
                            f"--hostname-override={name}", f"--node-ip={node_ip(name)}", "--v=2"],
                [f"path:{SOCKET}", READY]),
        Service("volumes", ["volumes", "node", name]),
        proxy(name),
    ])
    if UNPACKED_IMAGES:
        root = machine.volume(CONTAINERD_ROOT)
        root.mkdir(parents=True)
        run(["cp", "-a", f"{UNPACKED_IMAGES}/.", root], timeout=60)
    disk.make(machine.volume(NODE_DISK))
    return machine


def wait_for_containerd(machine: Machine) -> None:
    """Answers, and has the pause image: from here on it can make pods."""
    socket = f"/proc/{machine.pid()}/root{SOCKET}"
    api.until(f"containerd on {machine.name}", lambda: Path(socket).exists(), 60, lambda: machine.complaint("containerd"))
    if not UNPACKED_IMAGES:
        load(machine, images.pause())


def load(machine: Machine, archive: Path) -> str:
    """Import an image into the node's containerd; what it printed."""
    with open(archive, "rb") as data:
        return machine.run("ctr", "-n", "k8s.io", "images", "import", "-", limit=300, stdin=data)
