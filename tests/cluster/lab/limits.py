"""What stands in for CAP_SYS_RESOURCE on nodes of a machine that has not got it.

Guarantees: nodes only, and only where this machine's root lacks the capability (as in many
containers; a real node's has it); nothing but CRIU runs with it, and CRIU only reads the limits
of processes by it, which is what it would otherwise be refused for processes of another user.
"""
from __future__ import annotations

import re
from pathlib import Path

from . import cache
from .config import GOARCH
from .run import run
from .ui import Board

CAP_SYS_RESOURCE = 24
SOURCE = Path(__file__).with_name("limits.c")
LIBRARY = "usr/local/lib/criu-limits.so"
WRAPPER = f"""#!/bin/sh
# This machine has no CAP_SYS_RESOURCE: see tests/cluster/lab/limits.c.
LD_PRELOAD=/{LIBRARY} exec /usr/sbin/criu "$@"
"""
FLAGS = ["-shared", "-fPIC", "-O2", "-Wall", "-Werror"]


def needed(status: str | None = None) -> bool:
    """From the text of /proc/self/status: what root here could never have."""
    text = Path("/proc/self/status").read_text() if status is None else status
    bounding = re.search(r"^CapBnd:\s*([0-9a-f]+)$", text, re.MULTILINE)
    return bounding is not None and not int(bounding[1], 16) >> CAP_SYS_RESOURCE & 1


def entry() -> Path:
    return cache.path_of("limits", [SOURCE.read_bytes(), WRAPPER, GOARCH, *FLAGS])


def layers() -> list[Path]:
    """What lies over a node's root file system because of this: one layer, or none."""
    return [entry()] if needed() else []


def build(board: Board) -> None:
    if not needed():
        return
    if entry().exists():
        cache.entry(entry(), _make)
        return
    with board.step("limits", "no CAP_SYS_RESOURCE here: a stand-in for CRIU"):
        cache.entry(entry(), _make)


def _make(folder: Path) -> None:
    library, wrapper = folder / LIBRARY, folder / "usr/local/sbin/criu"
    for file in (library, wrapper):
        file.parent.mkdir(parents=True)
    run(["gcc", *FLAGS, "-o", library, SOURCE, "-ldl"])
    wrapper.write_text(WRAPPER)
    wrapper.chmod(0o755)
