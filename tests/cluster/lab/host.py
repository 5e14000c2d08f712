"""What this machine must have before anything else: root, Linux, a few Debian packages, Go.

Guarantees: what is missing from Debian is installed; what cannot be installed is named
together with what to do about it.
"""
from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

from .run import Failure, run
from .ui import Board

RUNS = {                                # a program or file, and the Debian package it is in
    "ip": "iproute2",
    "nsenter": "util-linux",
    "mkfs.ext4": "e2fsprogs",
    "openssl": "openssl",
}
BUILDS = {
    "mmdebstrap": "mmdebstrap",
    "gcc": "gcc",
    "/usr/include/unistd.h": "libc6-dev",
    "/usr/share/keyrings/debian-archive-keyring.gpg": "debian-archive-keyring",
}
GO = (1, 26)


def require_root() -> None:
    if os.geteuid() != 0:
        raise Failure("the cluster makes namespaces, mounts and cgroups: run it as root")


def install(board: Board, needed: dict[str, str]) -> None:
    missing = sorted({package for thing, package in needed.items() if not present(thing)})
    if not missing:
        return
    if not shutil.which("apt-get"):
        raise Failure("not a Debian machine; install these first: " + " ".join(missing))
    quiet = {"DEBIAN_FRONTEND": "noninteractive"}
    with board.step("packages", "apt-get install " + " ".join(missing)):
        run(["apt-get", "update", "-qq"], timeout=300, env=quiet)
        run(["apt-get", "install", "-y", "-qq", "--no-install-recommends", *missing], timeout=600, env=quiet)


def present(thing: str) -> bool:
    return Path(thing).exists() if thing.startswith("/") else shutil.which(thing) is not None


def go_version() -> str:
    """Such as `go1.26.8`; it is part of the name of everything that Go builds."""
    if not shutil.which("go"):
        raise Failure("go is not installed: the cluster's programs are built with Go %d.%d or newer" % GO)
    text = run(["go", "env", "GOVERSION"]).strip()
    found = re.match(r"go(\d+)\.(\d+)", text)
    if not found or (int(found[1]), int(found[2])) < GO:
        raise Failure(f"{text} is too old: the cluster's programs need Go %d.%d or newer" % GO)
    return text
