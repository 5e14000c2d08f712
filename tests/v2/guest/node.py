"""The machine as a node: containerd and a kubelet without an API server, as systemd's own units, and SHADOW's agent.

Guarantees: nothing is configured but what a node's administrator configures; the cgroup driver is the one asked for.
"""
import json
import os
import subprocess
import urllib.request
from pathlib import Path

from report import PATIENCE, eventually

JOB = Path("/run/job")
PODS = Path("/etc/kubernetes/manifests")
SOCKET = "/run/containerd/containerd.sock"
CERTIFICATES = "/run/agent"

CONTAINERD = """\
version = 3
imports = ['/etc/containerd/conf.d/*.toml']
[plugins.'io.containerd.cri.v1.images'.pinned_images]
  sandbox = 'localhost/pause:1'
[plugins.'io.containerd.cri.v1.runtime'.cni]
  bin_dirs = ['/usr/lib/cni']
[plugins.'io.containerd.cri.v1.runtime'.containerd]
  default_runtime_name = '{default}'
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]
  runtime_type = 'io.containerd.runc.v2'
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]
  SystemdCgroup = {systemd}
"""
KUBELET = """\
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
authentication: {{anonymous: {{enabled: true}}, webhook: {{enabled: false}}}}
authorization: {{mode: AlwaysAllow}}
enableServer: true
readOnlyPort: 10255
staticPodPath: {pods}
fileCheckFrequency: 1s
syncFrequency: 1s
cgroupDriver: {driver}
containerRuntimeEndpoint: unix://{socket}
failSwapOn: false
evictionHard: {{memory.available: 50Mi, nodefs.available: 1%, imagefs.available: 1%}}
"""
CNI = {"cniVersion": "1.0.0", "name": "pods", "plugins": [{"type": "ptp", "ipam": {
    "type": "host-local", "ranges": [[{"subnet": "10.201.0.0/24"}]], "routes": [{"dst": "0.0.0.0/0"}]}}]}
UNIT = """\
[Unit]
Description={name}
[Service]
ExecStart={command}
Environment=PATH=/run/job/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin SHADOW_LOG_FILTER=info,shadow=debug
Delegate={delegate}
KillMode=process
Restart=always
RestartSec=1
StandardOutput=append:/var/log/{name}.log
StandardError=append:/var/log/{name}.log
"""
AGENT = ("/run/job/bin/shadow agent --tls-dir {certificates} --runtime-binary /run/job/bin/shadow-runc "
         "--address 127.0.0.1 --health 127.0.0.1:9444")


def run(*argv, check=True, limit=30):
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=limit * PATIENCE)
    except subprocess.TimeoutExpired as error:
        raise AssertionError(str(error)) from None
    if check and done.returncode != 0:
        raise AssertionError(f"{' '.join(map(str, argv))}: {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


class Node:
    def __init__(self):
        os.makedirs("/etc/containerd/conf.d", exist_ok=True)
        os.makedirs("/etc/cni/net.d", exist_ok=True)
        PODS.mkdir(parents=True, exist_ok=True)
        Path("/etc/cni/net.d/10-pods.conflist").write_text(json.dumps(CNI))
        run("sysctl", "-qw", "net.ipv4.ip_forward=1")
        run("ip", "link", "set", "lo", "up")
        self.unit("containerd", "/run/job/bin/containerd", delegate="yes")
        self.unit("kubelet", "/run/job/bin/kubelet --config=/etc/kubernetes/kubelet.yaml --hostname-override=v2 --v=1")
        self.unit("agent", AGENT.format(certificates=JOB / "certificates"))
        run("systemctl", "daemon-reload")

    @staticmethod
    def unit(name, command, delegate="no"):
        Path(f"/etc/systemd/system/{name}.service").write_text(UNIT.format(name=name, command=command, delegate=delegate))

    def begin(self, driver):
        """With this cgroup driver; what another one has left is gone."""
        self.configure("runc", driver)
        Path("/etc/kubernetes/kubelet.yaml").write_text(KUBELET.format(pods=PODS, driver=driver, socket=SOCKET))
        run("systemctl", "restart", "containerd")
        eventually("containerd answers", 60, lambda: run("ctr", "version", check=False).count("Version") > 1)
        run("systemctl", "restart", "agent")
        eventually("the agent has prepared the node", 120, self.prepared)
        # Without an API server there is no RuntimeClass to name.
        self.configure("shadow", driver)
        run("systemctl", "restart", "containerd")
        eventually("containerd answers", 60, lambda: run("ctr", "version", check=False).count("Version") > 1)
        run("systemctl", "restart", "kubelet")

    @staticmethod
    def configure(default, driver):
        systemd = str(driver == "systemd").lower()
        Path("/etc/containerd/config.toml").write_text(CONTAINERD.format(default=default, systemd=systemd))

    @staticmethod
    def prepared():
        with urllib.request.urlopen("http://127.0.0.1:9444/readyz", timeout=5 * PATIENCE) as answer:
            return answer.status == 200

    @staticmethod
    def complaints():
        """The ends of all logs, for people."""
        return {unit: run("tail", "-n", "25", f"/var/log/{unit}.log", check=False) for unit in ("agent", "kubelet", "containerd")}
