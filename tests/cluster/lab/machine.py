"""A machine of the cluster: control plane, broker or node, made of namespaces.

Guarantees: a machine can be created, booted, killed at once like a power cut, stopped in
order, frozen, thawed, cut off, slowed down, filled up and healed on its own; its disk survives
all of these; a command inside it always has a time limit.
"""
from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Sequence

from . import disk, line, network, state
from .cgroups import Cgroups
from .config import HERE, LOGS, MACHINES, NODE_DISK, PATIENCE, VOLUMES, VOLUMES_INSIDE, address, netns
from .run import Failure, run, tail

GONE_LIMIT = 20.0 * PATIENCE
EXEC_LIMIT = 60.0


@dataclass(frozen=True)
class Service:
    """A program that the machine's supervisor keeps running."""

    name: str
    argv: Sequence[str]
    after: Sequence[str] = ()
    env: dict[str, str] = field(default_factory=dict)


class Machine:
    """A machine by its name: cp, mq, n1, n2, ..."""

    def __init__(self, name: str) -> None:
        self.name, self.group, self.ip = name, netns(name), address(name)
        self.disk, self.log = MACHINES / name, LOGS / name
        self.record, self.spec = self.disk / "pid", self.disk / "spec.json"

    def create(self, layers: Sequence[Path], files: dict[str, str], volumes: Sequence[str],
               services: Sequence[Service]) -> None:
        """Lay out a new disk; `files` are written to it, `volumes` are folders on the host's file system."""
        shutil.rmtree(self.disk, ignore_errors=True)
        for folder in ("upper", "work", "root"):
            (self.disk / folder).mkdir(parents=True)
        common = {"/etc/hostname": self.name + "\n", "/etc/machine-id": os.urandom(16).hex() + "\n",
                  "/etc/hosts": f"127.0.0.1 localhost\n{self.ip} {self.name}\n"}
        for path, text in {**common, **files}.items():
            place = self.disk / "upper" / path.lstrip("/")
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(text)
            place.chmod(0o600 if path.endswith((".key", ".kubeconfig")) else 0o644)
        kept = {path: str(self.volume(path)) for path in volumes}
        self.spec.write_text(json.dumps({
            "name": self.name, "hostname": self.name, "cgroup": self.group, "netns": str(network.handle(self.name)),
            "record": str(self.record), "disk": str(self.disk), "layers": [str(layer) for layer in layers],
            "volumes": {**kept, "/var/log": str(self.log), VOLUMES_INSIDE: str(VOLUMES)},
            "services": [{"name": one.name, "argv": list(one.argv), "after": list(one.after), "env": one.env}
                         for one in services],
        }, indent=1))

    def volume(self, path: str) -> Path:
        """Where a volume lies on the host."""
        return self.disk / "volumes" / path.strip("/").replace("/", "-")

    def boot(self) -> None:
        """Start it with the disk that it has; a machine that runs is left alone."""
        if self.pid():
            return
        if not self.spec.exists():
            raise Failure(f"there is no machine {self.name}; `cluster up` makes it")
        network.attach(self.name)
        cgroups = Cgroups()
        cgroups.remove(self.group)
        cgroups.make(self.group)
        self.log.mkdir(parents=True, exist_ok=True)
        run([sys.executable, "-B", "-m", "lab.boot", self.spec], cwd=HERE, timeout=30)

    def pid(self) -> int | None:
        """Its first process, as the host numbers it; None if the machine is off."""
        return state.recorded(self.record)

    def kill(self) -> None:
        """All of it vanishes at once, without a word on the network."""
        if network.exists(self.name):
            network.cut(self.name)
        self._end(signal.SIGKILL)
        line.restore(self)
        network.detach(self.name)

    def stop(self) -> None:
        """Its services are asked to end, then it ends; its address stays and refuses connections."""
        self._end(signal.SIGTERM)

    def _end(self, how: signal.Signals) -> None:
        pid, cgroups = self.pid(), Cgroups()
        if pid:
            os.kill(pid, how)
            cgroups.freeze(self.group, False)       # on v1 what is frozen dies only when thawed
        until = time.monotonic() + GONE_LIMIT
        while self.pid() or (how == signal.SIGKILL and cgroups.processes(self.group)):
            if time.monotonic() > until:
                raise Failure(f"{self.name} did not end within {GONE_LIMIT:.0f} s")
            time.sleep(0.01)
        cgroups.remove(self.group)

    def freeze(self) -> None:
        self._must_run()
        Cgroups().freeze(self.group, True)

    def thaw(self) -> None:
        Cgroups().freeze(self.group, False)

    def cut(self) -> None:
        if not network.exists(self.name):
            raise Failure(f"{self.name} has no network: it is off")
        network.cut(self.name)

    def slow(self, delay_ms: float, loss_percent: float, to: str | None = None) -> None:
        """Its packets are late or lost: all of them, or those from and to one other machine."""
        self._must_run()
        line.worsen(self, delay_ms, loss_percent, to)

    def fill(self, leave: int) -> int:
        """So many bytes at most are free in `NODE_DISK` from now on; how many are."""
        if not os.path.ismount(self.volume(NODE_DISK)):
            raise Failure(f"{self.name} has no disk that can be filled; nodes of a new cluster have one")
        return disk.fill(self.volume(NODE_DISK), leave)

    def heal(self) -> None:
        """Plugged in, at full speed, with room on its disk."""
        if network.exists(self.name):
            network.heal(self.name)
        line.restore(self)
        disk.free(self.volume(NODE_DISK))

    def state(self, cut: set[str] | None = None) -> str:
        """running, frozen, cut, slow, full or dead."""
        if not self.pid():
            return "dead"
        if Cgroups().frozen(self.group):
            return "frozen"
        if self.name in (network.cut_off() if cut is None else cut):
            return "cut"
        return "slow" if line.is_bad(self.name) else "full" if disk.is_full(self.volume(NODE_DISK)) else "running"

    def services(self) -> dict[str, Any]:
        """What its supervisor says of each service."""
        try:
            return json.loads(Path(f"/proc/{self.pid()}/root/run/services.json").read_text())
        except (OSError, ValueError):
            return {}

    def _must_run(self) -> int:
        pid = self.pid()
        if not pid:
            raise Failure(f"{self.name} is off; `cluster up` or `cluster node start` starts it")
        return pid

    def enter(self, limit: float = EXEC_LIMIT, terminal: bool = False) -> list[str]:
        """The words before a command that put it inside, with a time limit of its own in there."""
        keep = ["--foreground"] if terminal else []
        return ["nsenter", "-t", str(self._must_run()), "-m", "-p", "-n", "-u", "-i", "--root", "--wd",
                "timeout", *keep, "-k", "2", str(limit * PATIENCE)]

    def run(self, *argv: str | Path, limit: float = EXEC_LIMIT, check: bool = True, stdin: Any = None) -> str:
        return run([*self.enter(limit), *argv], timeout=limit + 5, check=check, stdin=stdin)

    def interactive(self, argv: Sequence[str], limit: float) -> int:
        """Run a command with our own streams; 124 when it took too long, as `timeout` says."""
        child = subprocess.Popen([*self.enter(limit, sys.stdin.isatty()), *argv])
        try:
            return child.wait((limit + 5) * PATIENCE)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
            return 124

    def complaint(self, service: str) -> str:
        """Why a service may not be working."""
        return tail(self.log / f"{service}.log") if self.pid() else tail(self.log / "init.log")
