"""The machine as a node: containerd and SHADOW's agent, as systemd's own units.

Guarantees: nothing is configured but what a node's administrator configures; the cgroup driver is the one asked for.
"""
import json
import os
import subprocess
import time
import urllib.request
from pathlib import Path

from engine import JOB, Engine
from report import PATIENCE, eventually, say

CONTAINERD = """\
version = 3
imports = ['/etc/containerd/conf.d/*.toml']
[plugins.'io.containerd.cri.v1.images'.pinned_images]
  sandbox = 'localhost/pause:1'
[plugins.'io.containerd.cri.v1.runtime'.cni]
  bin_dirs = ['/usr/lib/cni']
[plugins.'io.containerd.cri.v1.runtime'.containerd]
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]
  runtime_type = 'io.containerd.runc.v2'
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]
  SystemdCgroup = {systemd}
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
        self.driver = None
        os.makedirs("/etc/containerd/conf.d", exist_ok=True)
        os.makedirs("/etc/cni/net.d", exist_ok=True)
        Path("/etc/cni/net.d/10-pods.conflist").write_text(json.dumps(CNI))
        run("sysctl", "-qw", "net.ipv4.ip_forward=1")
        run("ip", "link", "set", "lo", "up")
        self.unit("containerd", "/run/job/bin/containerd", delegate="yes")
        self.unit("agent", AGENT.format(certificates=JOB / "certificates"))
        run("systemctl", "daemon-reload")
        self.engine = Engine()

    @staticmethod
    def unit(name, command, delegate="no"):
        Path(f"/etc/systemd/system/{name}.service").write_text(UNIT.format(name=name, command=command, delegate=delegate))

    def begin(self, driver):
        """With this cgroup driver."""
        self.driver = driver
        systemd = str(driver == "systemd").lower()
        Path("/etc/containerd/config.toml").write_text(CONTAINERD.format(systemd=systemd))
        began = time.monotonic()
        run("systemctl", "restart", "containerd")
        eventually("containerd answers", 60, lambda: run("ctr", "version", check=False).count("Version") > 1)
        answers = time.monotonic()
        run("systemctl", "restart", "agent")
        eventually("the agent has prepared the node", 120, self.prepared)
        say(f"     containerd answers after {answers - began:.1f} s, the node is prepared after {time.monotonic() - began:.1f} s")

    def group(self, uid):
        """A pod's cgroup, as a kubelet with this driver names it."""
        return f"kubepods-pod{uid.replace('-', '_')}.slice" if self.driver == "systemd" else f"/kubepods/pod{uid}"

    @staticmethod
    def prepared():
        with urllib.request.urlopen("http://127.0.0.1:9444/readyz", timeout=5 * PATIENCE) as answer:
            return answer.status == 200

    @staticmethod
    def complaints():
        """The ends of all logs, for people."""
        return {unit: run("tail", "-n", "25", f"/var/log/{unit}.log", check=False) for unit in ("agent", "containerd")}
