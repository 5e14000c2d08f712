"""Pods of one container, given to the kubelet as files, and what is seen of them from inside and outside."""
import copy
import http.client
import json
import os
import time
import uuid
from pathlib import Path

from inside import group_of, look
from node import PODS, run
from report import eventually

PORT = 8080
# As the webhook marks pods of annotated owners.
PREPARED = {"migration.ms2m.io/prepared": "true"}


class Pod:
    def __init__(self, name, image, command, limits, env=None, paths=("/", "/")):
        self.name, self.uid, self.paths, self.annotations = name, str(uuid.uuid4()), paths, dict(PREPARED)
        env = {"LISTEN": f"0.0.0.0:{PORT}", **(env or {})}
        self.spec = {"name": "app", "image": image, "imagePullPolicy": "Never", "command": command,
                     "env": [{"name": key, "value": value} for key, value in env.items()],
                     "resources": {"limits": limits, "requests": limits}}

    @property
    def file(self):
        return PODS / f"{self.name}.json"

    def reference(self):
        return {"pod": {"namespace": "default", "name": f"{self.name}-v2", "uid": self.uid}, "container": "app"}

    def successor(self, ticket):
        """The pod that comes after it, with its ticket."""
        pod = copy.copy(self)
        pod.uid, pod.annotations = str(uuid.uuid4()), {**PREPARED, "migration.ms2m.io/ticket": ticket}
        return pod

    def make(self):
        body = {"apiVersion": "v1", "kind": "Pod",
                "metadata": {"name": self.name, "namespace": "default", "uid": self.uid, "annotations": self.annotations},
                "spec": {"terminationGracePeriodSeconds": 1, "restartPolicy": "Always", "enableServiceLinks": False,
                         "automountServiceAccountToken": False, "containers": [self.spec]}}
        aside = Path(f"/etc/kubernetes/{self.uid}")
        aside.write_text(json.dumps(body))
        aside.rename(self.file)

    def remove(self):
        self.file.unlink()
        eventually(f"{self.name} is gone", 60, lambda: not self._task())

    def _tasks(self):
        for bundle in Path("/run/containerd/io.containerd.runtime.v2.task/k8s.io").glob("*/config.json"):
            try:
                config = json.loads(bundle.read_text())
                if config["annotations"]["io.kubernetes.cri.sandbox-uid"] == self.uid:
                    yield config["annotations"]["io.kubernetes.cri.container-type"], bundle.parent.name
            except (OSError, KeyError, ValueError):
                continue

    def _task(self):
        return dict(self._tasks()).get("container")

    @property
    def pid(self):
        """Its first process."""
        task = self._task()
        if not task:
            raise ValueError("it has no container")
        state = json.loads(run("runc", "--root", "/run/containerd/runc/k8s.io", "state", task))
        if state["status"] != "running":
            raise ValueError(state["status"])
        return state["pid"]

    def group(self):
        return group_of(self.pid)

    def outside(self, name):
        return (self.group() / name).read_text()

    def processes(self, group=None):
        return ((group or self.group()) / "cgroup.procs").read_text().split()

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


def seconds():
    return time.monotonic()
