"""Leaving nothing behind.

Guarantees: ends only what is ours by construction: recorded first processes, whatever lives
in our cgroups, whatever lives in our network namespaces; never by name. Works on the
remains of any earlier cluster, of another clone, complete or not; says what it could not
remove.
"""
from __future__ import annotations

import os
import re
import shutil
import signal
import time
from pathlib import Path

from . import network, state
from .cgroups import Cgroups
from .config import LOGS, MACHINES, PATIENCE, PREFIX, STATE
from .run import Failure
from .syscalls import MNT_DETACH, umount

OURS = re.compile(rf"{PREFIX}(sw|cp|mq|n[1-9])$")
LIMIT = 20.0 * PATIENCE


def groups() -> set[str]:
    return {name for name in Cgroups().existing() if OURS.match(name)}


def namespaces() -> list[str]:
    return [name for name in network.existing() if OURS.match(PREFIX + name)]


def processes() -> set[int]:
    """Everything that runs and is ours, without this command itself."""
    found = {pid for record in MACHINES.glob("*/pid") if (pid := state.recorded(record))}
    cgroups = Cgroups()
    for name in groups():
        found |= cgroups.processes(name)
    nets = {(path.stat().st_dev, path.stat().st_ino) for name in namespaces() if os.path.ismount(path := network.handle(name))}
    for entry in Path("/proc").glob("[0-9]*") if nets else ():
        try:
            seen = os.stat(entry / "ns/net")
        except OSError:
            continue
        if (seen.st_dev, seen.st_ino) in nets:
            found.add(int(entry.name))
    return {pid for pid in found - state.ancestors() if state.start_time(pid) is not None}


def mounts() -> list[str]:
    """Mounts on the host below our folders, the innermost first."""
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    points = [line.split()[4].replace("\\040", " ") for line in lines]
    return [point for point in reversed(points) if point.startswith(f"{STATE}/")]


def leftovers() -> list[str]:
    return ([f"process {pid} {_command(pid)}" for pid in sorted(processes())]
            + [f"mount {point}" for point in mounts()]
            + [f"network namespace {PREFIX}{name}" for name in namespaces()]
            + [f"cgroup {name}" for name in sorted(groups())])


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()[:80]
    except OSError:
        return ""


def remove_everything() -> None:
    """Back to a machine without a cluster; only the logs stay. Fails with a list if something is left."""
    _end_processes()
    for point in mounts():
        umount(point, MNT_DETACH)
    for name in namespaces():
        network.detach(name)
    for name in groups():
        Cgroups().remove(name)
    for path in STATE.glob("*"):
        if path != LOGS:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    left = leftovers()
    if left:
        raise Failure("could not be removed:\n" + "\n".join(f"    {item}" for item in left))


def _end_processes() -> None:
    cgroups, until = Cgroups(), time.monotonic() + LIMIT
    while alive := processes():
        for pid in alive:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        for name in groups():
            cgroups.freeze(name, False)         # a frozen process dies when it is thawed
        if time.monotonic() > until:
            return                              # what is left is listed by the caller
        time.sleep(0.02)
