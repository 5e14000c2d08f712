"""One cgroup for each machine, on cgroup v1 and v2.

Guarantees: everything that runs on a machine is below its cgroup from the first instruction
on, so the cgroup freezes all of it and names all of it; removal takes the whole tree.
On v1 there is one folder in every controller; on v2 one delegated tree, whose processes
live in the leaf `init` because a group with controllers may hold no process itself.
"""
from __future__ import annotations

import os
import time
from pathlib import Path

from .config import PATIENCE, PREFIX
from .run import Failure

ROOT = Path("/sys/fs/cgroup")
LEAF = "init"
WANTED = ("cpu", "cpuset", "memory", "pids", "io", "hugetlb")
NEEDED = ("cpu", "memory", "pids")


class Cgroups:
    """The hierarchy below `root`; another root serves for tests."""

    def __init__(self, root: Path = ROOT) -> None:
        self.root = root

    @property
    def version(self) -> int:
        return 2 if (self.root / "cgroup.controllers").exists() else 1

    def folders(self, name: str) -> list[Path]:
        """The folder of the group in every hierarchy, whether it exists or not."""
        if self.version == 2:
            return [self.root / name]
        return [path / name for path in self.hierarchies()]

    def hierarchies(self) -> list[Path]:
        """v1: each mounted controller once (cpu,cpuacct and its two links are one)."""
        return sorted({path.resolve() for path in self.root.iterdir() if path.is_dir()})

    def make(self, name: str) -> None:
        if self.version == 2:
            self._make_v2(name)
            return
        for folder in self.folders(name):
            if folder.parent.name == "unified":
                continue
            folder.mkdir(exist_ok=True)
            for file in ("cpuset.cpus", "cpuset.mems"):
                if (folder.parent / file).exists():
                    (folder / file).write_text((folder.parent / file).read_text())

    def _make_v2(self, name: str) -> None:
        group = self.root / name
        (group / LEAF).mkdir(parents=True, exist_ok=True)
        for parent in (self.root, group):
            for controller in (parent / "cgroup.controllers").read_text().split():
                if controller in WANTED:
                    self._delegate(parent, controller)

    def _delegate(self, parent: Path, controller: str) -> None:
        try:
            (parent / "cgroup.subtree_control").write_text(f"+{controller}")
        except OSError as error:
            if controller in NEEDED:
                raise Failure(f"cgroup v2: cannot pass {controller} on below {parent} ({error.strerror}); "
                              "inside a container the cluster needs the host's cgroup tree") from None

    def join(self, name: str) -> None:
        """Move the calling process into the group."""
        for folder in self.folders(name):
            target = folder / LEAF if self.version == 2 else folder
            if target.exists():
                (target / "cgroup.procs").write_text(str(os.getpid()))

    def freeze(self, name: str, still: bool, limit: float = 10) -> None:
        """Stop or go on with everything in the group; returns when it has happened."""
        if self.version == 2:
            switch, word = self.root / name / "cgroup.freeze", "1" if still else "0"
        else:
            switch, word = self.root / "freezer" / name / "freezer.state", "FROZEN" if still else "THAWED"
        if not switch.exists():
            return
        until = time.monotonic() + limit * PATIENCE
        switch.write_text(word)
        while self.frozen(name) != still:
            if time.monotonic() > until:
                raise Failure(f"{name} did not {'freeze' if still else 'thaw'} within {limit * PATIENCE:.0f} s")
            time.sleep(0.01)
            if self.version == 1:
                switch.write_text(word)     # the v1 freezer needs to be asked again while processes fork

    def frozen(self, name: str) -> bool:
        try:
            if self.version == 2:
                return "frozen 1" in (self.root / name / "cgroup.events").read_text()
            return (self.root / "freezer" / name / "freezer.state").read_text().strip() == "FROZEN"
        except FileNotFoundError:
            return False

    def processes(self, name: str) -> set[int]:
        """Everything that lives in the group or below it, in any hierarchy."""
        found: set[int] = set()
        for folder in self.folders(name):
            for path in [folder, *(Path(top) / sub for top, subs, _ in os.walk(folder) for sub in subs)]:
                try:
                    found.update(map(int, (path / "cgroup.procs").read_text().split()))
                except OSError:
                    continue
        return found

    def remove(self, name: str, limit: float = 10) -> None:
        """Remove the group with everything below it; what still holds a process is left."""
        until = time.monotonic() + limit * PATIENCE
        while True:
            for folder in self.folders(name):
                for top, _, _ in os.walk(folder, topdown=False):
                    try:
                        os.rmdir(top)
                    except OSError:
                        continue
            if not any(folder.exists() for folder in self.folders(name)) or time.monotonic() > until:
                return
            time.sleep(0.05)

    def existing(self) -> set[str]:
        """Our groups, by name, that exist in any hierarchy."""
        places = [self.root] if self.version == 2 else self.hierarchies()
        return {path.name for place in places for path in place.glob(PREFIX + "*") if path.is_dir()}
