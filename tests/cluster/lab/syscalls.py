"""The few kernel calls that Python 3.11 does not offer.

Guarantees: each call either works or raises OSError naming what it was asked for.
"""
from __future__ import annotations

import ctypes
import os
import platform
import threading
from typing import Callable, TypeVar

T = TypeVar("T")
_libc = ctypes.CDLL(None, use_errno=True)

CLONE_NEWNS, CLONE_NEWUTS, CLONE_NEWIPC, CLONE_NEWPID, CLONE_NEWNET = 0x20000, 0x4000000, 0x8000000, 0x20000000, 0x40000000
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_BIND, MS_REC, MS_PRIVATE, MS_SHARED = 1, 2, 4, 8, 4096, 16384, 1 << 18, 1 << 20
MNT_DETACH = 2
_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}[platform.machine()]


def _check(result: int, what: str) -> None:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def _bytes(text: str | None) -> bytes | None:
    return None if text is None else text.encode()


def mount(source: str | None, target: str, kind: str | None = None, flags: int = 0, data: str | None = None) -> None:
    _check(_libc.mount(_bytes(source), _bytes(target), _bytes(kind), ctypes.c_ulong(flags), _bytes(data)),
           f"mount {kind or source} on {target}")


def die_with_parent() -> None:
    """This process, but not its children, is killed when the one that started it ends."""
    _check(_libc.prctl(1, ctypes.c_ulong(9), 0, 0, 0), "prctl")


def umount(target: str, flags: int = 0) -> None:
    _check(_libc.umount2(_bytes(target), flags), f"umount {target}")


def unshare(flags: int) -> None:
    _check(_libc.unshare(flags), "unshare")


def setns(path: str, flags: int) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        _check(_libc.setns(fd, flags), f"setns {path}")
    finally:
        os.close(fd)


def pivot_root(new: str, old: str) -> None:
    _check(_libc.syscall(ctypes.c_long(_PIVOT_ROOT), _bytes(new), _bytes(old)), f"pivot_root {new}")


def sethostname(name: str) -> None:
    _check(_libc.sethostname(_bytes(name), len(name)), f"sethostname {name}")


def in_netns(path: str, work: Callable[[], T]) -> T:
    """Do `work` in a network namespace: in a thread of its own, as namespaces belong to threads."""
    outcome: list[tuple[bool, object]] = []

    def body() -> None:
        try:
            setns(path, CLONE_NEWNET)
            outcome.append((True, work()))
        except BaseException as error:      # handed to the caller below
            outcome.append((False, error))

    thread = threading.Thread(target=body)
    thread.start()
    thread.join()
    fine, value = outcome[0]
    if not fine:
        raise value  # type: ignore[misc]
    return value  # type: ignore[return-value]
