"""Pods of one container, made as a kubelet makes them, and what is seen of them from inside and outside."""
import base64
import copy
import http.client
import json
import os
import uuid
from pathlib import Path

from inside import group_of, look
from report import eventually

PORT = 8080
IMAGE = "localhost/v2:1"
# As the webhook marks pods of annotated owners.
PREPARED = {"migration.ms2m.io/prepared": "true"}
TASKS = Path("/run/containerd/io.containerd.runtime.v2.task/k8s.io")
# What kubelets hide in /proc and /sys, and what may only be read there.
MASKED = ["/proc/asound", "/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list", "/proc/timer_stats",
          "/proc/sched_debug", "/proc/scsi", "/sys/firmware", "/sys/devices/virtual/powercap"]
READ_ONLY = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]
PERIOD = 100_000
# Of a pod in a user namespace: where its root is on the node.
AWAY = [{"host_id": 1 << 17, "container_id": 0, "length": 1 << 16}]


class Pod:
    def __init__(self, node, name, command, memory, processors=1.5, env=None, paths=("/", "/"), user_namespace=False):
        self.node, self.name, self.command, self.paths = node, name, command, paths
        self.uid, self.annotations, self.made = str(uuid.uuid4()), dict(PREPARED), None
        self.resources = {"memory_limit_in_bytes": memory, "cpu_period": PERIOD, "cpu_quota": int(processors * PERIOD)}
        self.env = {"LISTEN": f"0.0.0.0:{PORT}", **(env or {})}
        self.users = {"userns_options": {"mode": "POD", "uids": AWAY, "gids": AWAY}} if user_namespace else {}

    def reference(self):
        return {"pod": {"namespace": "default", "name": self.name, "uid": self.uid}, "container": "app"}

    def successor(self, ticket):
        """The pod that comes after it, with its ticket."""
        pod = copy.copy(self)
        pod.uid, pod.annotations, pod.made = str(uuid.uuid4()), {**PREPARED, "migration.ms2m.io/ticket": ticket}, None
        return pod

    def make(self):
        """Runs when this returns."""
        self.made = self.node.engine.ask({"make": {"handler": "shadow", "sandbox": self._sandbox(), "container": self._container()}})
        return self

    def remove(self):
        self.node.engine.ask({"remove": self.made["sandbox"]})

    def _labels(self):
        return {f"io.kubernetes.pod.{key}": value for key, value in self.reference()["pod"].items()}

    def _security(self):
        return {"namespace_options": {"network": "POD", "pid": "CONTAINER", "ipc": "POD", **self.users}}

    def _sandbox(self):
        return {
            "metadata": {**self.reference()["pod"], "attempt": 0}, "hostname": self.name, "labels": self._labels(),
            "annotations": self.annotations, "log_directory": f"/var/log/pods/{self.uid}",
            "linux": {"cgroup_parent": self.node.group(self.uid), "security_context": self._security()},
        }

    def _container(self):
        return {
            "metadata": {"name": "app", "attempt": 0}, "image": {"image": IMAGE}, "command": self.command, "log_path": "app.log",
            "labels": {**self._labels(), "io.kubernetes.container.name": "app"},
            "envs": [{"key": key, "value": base64.b64encode(value.encode()).decode()} for key, value in self.env.items()],
            "linux": {"resources": self.resources,
                      "security_context": {**self._security(), "masked_paths": MASKED, "readonly_paths": READ_ONLY}},
        }

    @property
    def pid(self):
        """Its first process."""
        return int((TASKS / self.made["container"] / "init.pid").read_text())

    def group(self):
        return group_of(self.pid)

    def outside(self, name):
        return (self.group() / name).read_text()

    def processes(self):
        return self.outside("cgroup.procs").split()

    def ask(self, method="GET", body=b""):
        """Its state, after a write if it is a POST."""
        connection = Connection(self.pid, timeout=20)
        connection.request(method, self.paths[method == "POST"], body)
        return json.loads(connection.getresponse().read())

    def serves(self, limit=90):
        return eventually(f"{self.name} answers", limit, self.ask)

    def look(self):
        return look(self.pid)


class Connection(http.client.HTTPConnection):
    """To the pod's own loopback."""

    def __init__(self, pid, timeout):
        super().__init__("127.0.0.1", PORT, timeout=timeout)
        self.pid = pid

    def connect(self):
        ours = os.open("/proc/self/ns/net", os.O_RDONLY)
        theirs = os.open(f"/proc/{self.pid}/ns/net", os.O_RDONLY)
        try:
            os.setns(theirs, os.CLONE_NEWNET)
            super().connect()
        finally:
            os.setns(ours, os.CLONE_NEWNET)
            os.close(ours)
            os.close(theirs)
