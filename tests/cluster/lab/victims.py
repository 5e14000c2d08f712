"""Single programs on a machine, in pods or not, killed without a word.

Guarantees: only what is in the machine's cgroup is found, by its name and words of its command
line, and it is ended by its number.
"""
from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Sequence

from .machine import Machine
from .run import Failure

LOOK = 0.002


def kill(machine: Machine, words: Sequence[str], child: str | None = None, patience: float = 0) -> list[str]:
    """Kills all programs so called; with `child` only those that have started a program of that name.

    Waits so many seconds for the first one to appear. What was killed.
    """
    until = time.monotonic() + patience
    while True:
        killed = [described for pid in find(machine, words)
                  if (child is None or has_started(pid, child)) and (described := _end(pid))]
        if killed:
            return killed
        if time.monotonic() > until:
            having = f" that has started {child}" if child else ""
            raise Failure(f"nothing on {machine.name} is called `{' '.join(words)}`{having}")
        time.sleep(LOOK)


def find(machine: Machine, words: Sequence[str]) -> list[int]:
    """Programs on the machine: the first word is the file's name, the others are among its arguments."""
    return [int(entry.name) for entry in Path("/proc").glob("[0-9]*")
            if _is_called(_words(entry), words) and _is_in(entry, machine.group)]


def has_started(pid: int, name: str) -> bool:
    """Below it runs a program of that name."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        # Other threads may have started some, too.
        for task in Path(f"/proc/{pid}/task").iterdir():
            if task.name != str(pid):
                children += (task / "children").read_text().split()
        return any(Path(f"/proc/{child}/comm").read_text().strip() == name or has_started(int(child), name)
                   for child in children)
    except OSError:
        return False


def _end(pid: int) -> str | None:
    described = f"{pid} {' '.join(_words(Path(f'/proc/{pid}')))[:100]}"
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return None
    return described


def _words(entry: Path) -> list[str]:
    try:
        return entry.joinpath("cmdline").read_bytes().decode(errors="replace").rstrip("\0").split("\0")
    except OSError:
        return [""]


def _is_called(argv: list[str], words: Sequence[str]) -> bool:
    return os.path.basename(argv[0]) == words[0] and all(word in argv[1:] for word in words[1:])


def _is_in(entry: Path, group: str) -> bool:
    try:
        lines = entry.joinpath("cgroup").read_text().splitlines()
    except OSError:
        return False
    return any(line.split(":", 2)[2].split("/")[1:2] == [group] for line in lines)
