"""What is remembered between commands.

Guarantees: one command at a time changes the cluster (a lock on the machine); a process is
known by its number and its start time, so a number used again is never mistaken for it; a
cluster counts as complete only in the boot of the host that made it.
"""
from __future__ import annotations

import fcntl
import json
import os
import time
from contextlib import contextmanager
from pathlib import Path
from typing import Iterator

from .config import COMPLETE, LOCK
from .run import Failure
from .ui import Board


@contextmanager
def lock(board: Board | None = None, limit: float = 3600) -> Iterator[None]:
    """Hold the cluster; waits for another command that does."""
    LOCK.parent.mkdir(parents=True, exist_ok=True)
    with open(LOCK, "a") as file:
        until, told = time.monotonic() + limit, False
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if board and not told:
                    board.line("  another command is changing the cluster; waiting for it")
                    told = True
                if time.monotonic() > until:
                    raise Failure("another command is still changing the cluster") from None
                time.sleep(0.1)
        yield


def start_time(pid: int) -> str | None:
    """When a process began, in the kernel's own words; None if there is no such process."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] in "ZX" else fields[19]


def record(file: Path, pid: int) -> None:
    partial = file.with_suffix(".new")
    partial.write_text(json.dumps({"pid": pid, "start": start_time(pid)}))
    partial.rename(file)


def recorded(file: Path) -> int | None:
    """The process that was recorded, if it is still that process."""
    try:
        kept = json.loads(file.read_text())
    except (FileNotFoundError, ValueError):
        return None
    began = start_time(kept["pid"])
    return kept["pid"] if began is not None and began == kept["start"] else None


def boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def set_complete(nodes: list[str]) -> None:
    partial = COMPLETE.with_suffix(".new")
    partial.write_text(json.dumps({"nodes": nodes, "boot": boot_id()}))
    partial.rename(COMPLETE)


def complete() -> list[str] | None:
    """The nodes of the cluster that `up` finished making, or None."""
    try:
        kept = json.loads(COMPLETE.read_text())
    except (FileNotFoundError, ValueError):
        return None
    return kept["nodes"] if kept.get("boot") == boot_id() else None


def ancestors() -> set[int]:
    """This process and everything above it: never to be ended by us."""
    found, pid = set(), os.getpid()
    while pid > 0 and pid not in found:
        found.add(pid)
        try:
            pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        except (FileNotFoundError, ProcessLookupError):
            break
    return found
