"""A disk of a machine's own below one folder: what fills it up fills nothing else.

Guarantees: it survives everything that the machine survives; filling it takes no room on the
host and no time; `free` gives back exactly what `fill` took.
"""
from __future__ import annotations

import os
import shutil
from pathlib import Path

from .config import VOLUMES
from .run import run

BYTES = 8 << 30             # at most; on the host it takes what is in it
VOLUME_BYTES = 2 << 30      # of one that a pod claims
FILLING = ".filling"


def make(folder: Path) -> None:
    """A new disk, mounted on the host, where the machine's folder is bound to it."""
    image = folder.with_suffix(".img")
    folder.mkdir(parents=True, exist_ok=True)
    _format(image, BYTES)
    run(["mount", "-o", "loop", image, folder], timeout=30)


def _format(image: Path, size: int) -> None:
    with open(image, "wb") as file:
        file.truncate(size)
    run(["mkfs.ext4", "-q", "-F", "-m", "0", "-E", "nodiscard", image], timeout=30)


def volume(name: str) -> None:
    """New and empty, as a disk that one node at a time mounts and as a folder that all do; not attached, not stuck."""
    VOLUMES.mkdir(parents=True, exist_ok=True)
    forget(name)
    _format(VOLUMES / f"{name}.img", VOLUME_BYTES)
    (VOLUMES / name).mkdir()
    (VOLUMES / name).chmod(0o777)


def forget(name: str) -> None:
    shutil.rmtree(VOLUMES / name, ignore_errors=True)
    for suffix in (".img", ".node", ".stuck"):
        (VOLUMES / f"{name}{suffix}").unlink(missing_ok=True)


def stick(name: str, stuck: bool) -> None:
    """Whether the disk is neither attached nor detached, whoever asks for it."""
    mark = VOLUMES / f"{name}.stuck"
    mark.touch() if stuck else mark.unlink(missing_ok=True)


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
