"""The root file system that every machine of the cluster starts from: Debian testing.

Guarantees: it holds CRIU 4.2 or newer (older ones cannot dump a TCP socket on current
kernels), runc, crun, RabbitMQ 4 and the CNI plugins; it is one cache entry, never written to
after it is made (machines put an overlay on top).
"""
from __future__ import annotations

import re
from pathlib import Path

from . import cache
from .config import GOARCH
from .run import Failure, run
from .ui import Board

SUITE = "forky"
PACKAGES = """
    criu runc crun containernetworking-plugins rabbitmq-server
    iproute2 iptables nftables conntrack kmod mount util-linux
    procps psmisc iputils-ping ca-certificates libcap2-bin
""".split()
OPTIONS = [
    '--aptopt=Acquire::Check-Valid-Until "false"',
    '--aptopt=Acquire::Languages "none"',
    '--aptopt=APT::Install-Recommends "false"',
    *(f"--dpkgopt=path-exclude=/usr/share/{what}/*" for what in ("man", "doc", "locale", "info")),
]
LEAST = {"criu": (4, 2), "runc": (1, 2)}


def entry() -> Path:
    return cache.path_of("debian", [SUITE, GOARCH, *sorted(PACKAGES), *OPTIONS])


def build(board: Board) -> None:
    if entry().exists():
        cache.entry(entry(), _make)
        return
    with board.step("debian", f"{SUITE}: fetching and unpacking") as step:
        path, _ = cache.entry(entry(), _make)
        step.say(f"{SUITE}: " + ", ".join(f"{name} {version(path, name)}" for name in LEAST))


def _make(folder: Path) -> None:
    run(["mmdebstrap", "--quiet", "--variant=essential", "--format=directory", *OPTIONS,
         "--include=" + ",".join(PACKAGES), SUITE, folder], timeout=1800)
    for name, least in LEAST.items():
        found = version(folder, name)
        if tuple(int(part) for part in found.split(".")[:2]) < least:
            raise Failure(f"Debian {SUITE} has {name} {found}; {'.'.join(map(str, least))} or newer is needed")


def version(folder: Path, program: str) -> str:
    text = run(["chroot", folder, program, "--version"], timeout=10)
    found = re.search(r"\d+(\.\d+)+", text)
    return found[0] if found else "?"
