"""Two small pods for the selftest, one on each node, and a Service in front of them.

Guarantees: used with `with`, they are gone again afterwards, whatever happened.
"""
from __future__ import annotations

import http.client
import json
import tempfile
from pathlib import Path
from typing import Any, Callable

from lab.api import inside, until
from lab.run import run

IMAGE = "localhost/answer:1"
NODES = ("n1", "n2")


class Pods:
    """Pods that answer over HTTP; `cluster` is the tool's command line."""

    def __init__(self, cluster: Callable[..., str]) -> None:
        self.cluster, self.service = cluster, ""

    @staticmethod
    def name(node: str) -> str:
        return f"selftest-{node}"

    def __enter__(self) -> "Pods":
        self._image()
        try:
            self._apply(*(self._pod(self.name(node), node) for node in NODES), {
                "apiVersion": "v1", "kind": "Service", "metadata": {"name": "selftest"},
                "spec": {"selector": {"app": "selftest"}, "ports": [{"port": 8080}]}})
            self.cluster("kubectl", "wait", "--for=condition=Ready", "pod", "-l", "app=selftest", "--timeout=60s")
            self.service = self._field("service/selftest", "{.spec.clusterIP}")
            until("the Service", lambda: self.ask(self.service, "cp"), 10, lambda: "kube-proxy is slow")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.cluster("kubectl", "delete", "pod,service", "-l", "app=selftest", "--now", "--ignore-not-found", expect=None)
        self.cluster("kubectl", "delete", "service/selftest", "runtimeclass/selftest", "--ignore-not-found", expect=None)

    def _image(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            program, tar = Path(folder, "answer"), Path(folder, "answer.tar")
            run(["gcc", "-static", "-Os", "-Wall", "-Werror", "-o", program, Path(__file__).with_name("answer.c")])
            self.cluster("image", str(tar), IMAGE, "--entrypoint", '["/answer"]', "--env", "SELF=test", f"{program}=/answer")
            self.cluster("load", str(tar))

    @staticmethod
    def _pod(name: str, node: str, **more: Any) -> dict[str, Any]:
        return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": "selftest"}},
                "spec": {"nodeName": node, "terminationGracePeriodSeconds": 1, **more, "containers": [
                    {"name": "main", "image": IMAGE, "imagePullPolicy": "Never"}]}}

    def _apply(self, *objects: dict[str, Any]) -> None:
        with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
            json.dump({"apiVersion": "v1", "kind": "List", "items": objects}, file)
            file.flush()
            self.cluster("kubectl", "apply", "-f", file.name)

    def _field(self, what: str, path: str) -> str:
        return self.cluster("kubectl", "get", what, "-o", f"jsonpath={path}").strip()

    def run_with_runtime(self, node: str, runtime: str) -> None:
        """A pod whose RuntimeClass names that handler comes up."""
        self._apply({"apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass", "metadata": {"name": "selftest"}, "handler": runtime},
                    self._pod("selftest-runtime", node, runtimeClassName="selftest"))
        self.cluster("kubectl", "wait", "--for=condition=Ready", "pod/selftest-runtime", "--timeout=60s")

    def ip(self, node: str) -> str:
        return self._field(f"pod/{self.name(node)}", "{.status.podIP}")     # another one after a reboot

    def ask(self, ip: str, *networks: str, path: str = "/") -> str:
        """What the first network that gets an answer sees at an address; empty if none does."""
        for where in networks:
            try:
                return inside(where, lambda: self._get(ip, path))
            except (OSError, http.client.HTTPException):
                continue
        return ""

    @staticmethod
    def _get(ip: str, path: str) -> str:
        connection = http.client.HTTPConnection(ip, 8080, timeout=3)
        connection.request("GET", path)
        return connection.getresponse().read().decode(errors="replace")

    def fetch(self, pod: str, target: str) -> str:
        """What a pod sees at an address."""
        return self.ask(pod, "cp", path=f"/via/{target}")

    def answers(self, node: str) -> bool:
        return "host=" in self.ask(self.ip(node), "cp")
