"""A disk of a machine's own below one folder: what fills it up fills nothing else.

Guarantees: it survives everything that the machine survives; filling it takes no room on the
host and no time; `free` gives back exactly what `fill` took.
"""
from __future__ import annotations

import os
from pathlib import Path

from .run import run

BYTES = 8 << 30             # at most; on the host it takes what is in it
FILLING = ".filling"


def make(folder: Path) -> None:
    """A new disk, mounted on the host, where the machine's folder is bound to it."""
    image = folder.with_suffix(".img")
    folder.mkdir(parents=True, exist_ok=True)
    with open(image, "wb") as file:
        file.truncate(BYTES)
    run(["mkfs.ext4", "-q", "-F", "-m", "0", "-E", "nodiscard", image], timeout=30)
    run(["mount", "-o", "loop", image, folder], timeout=30)


def fill(folder: Path, leave: int) -> int:
    """Takes all room but `leave` bytes; how much is free then."""
    free(folder)
    file = os.open(folder / FILLING, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        taken, piece = 0, _free(folder)
        while piece >= 1 << 12:
            piece = min(piece, _free(folder) - leave)
            try:
                if piece > 0:
                    os.posix_fallocate(file, taken, piece)
                    taken += piece
            except OSError:             # the file system needs some of it for itself
                pass
            piece //= 2
    finally:
        os.close(file)
    return _free(folder)


def free(folder: Path) -> None:
    (folder / FILLING).unlink(missing_ok=True)


def is_full(folder: Path) -> bool:
    return (folder / FILLING).exists()


def _free(folder: Path) -> int:
    room = os.statvfs(folder)
    return room.f_bavail * room.f_frsize
