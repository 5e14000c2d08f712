"""File systems of Debian packages, for images of programs as people run them.

Guarantees: the same packages are one entry of the cache, with the digest by which images name
it; every one has a user `app` of number 1001, as charts run their programs.
"""
from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Sequence

from . import cache, host
from .config import GOARCH
from .rootfs import SUITE
from .run import run
from .ui import Board

USER = 1001
# No folder of manual pages, and Java's packages cannot be configured.
OPTIONS = [
    '--aptopt=Acquire::Check-Valid-Until "false"',
    '--aptopt=Acquire::Languages "none"',
    '--aptopt=APT::Install-Recommends "false"',
    *(f"--dpkgopt=path-exclude=/usr/share/{what}/*" for what in ("doc", "locale", "info")),
    f'--customize-hook=chroot "$1" useradd --uid {USER} --create-home --shell /bin/sh app',
    '--customize-hook=rm -rf "$1"/var/lib/postgresql/*/* "$1"/var/log/*.log "$1"/var/cache/apt/*',
]


def layer(board: Board, packages: Sequence[str]) -> tuple[Path, str]:
    """A tar with these packages and all that they need, and its digest."""
    wanted = sorted(packages)
    path = cache.path_of("packages", [SUITE, GOARCH, *wanted, *OPTIONS])
    if path.exists():
        cache.entry(path, lambda _: None)
    else:
        host.require_root()
        host.install(board, host.RUNS | host.BUILDS)
        with board.step("packages", f"{SUITE}: fetching and unpacking {', '.join(wanted)}"):
            cache.entry(path, lambda folder: _make(folder, wanted))
    return path / "layer.tar", (path / "digest").read_text()


def _make(folder: Path, packages: Sequence[str]) -> None:
    tar = folder / "layer.tar"
    run(["mmdebstrap", "--quiet", "--variant=essential", "--format=tar", *OPTIONS,
         "--include=" + ",".join(packages), SUITE, tar], timeout=1800)
    with open(tar, "rb") as data:
        (folder / "digest").write_text("sha256:" + hashlib.file_digest(data, "sha256").hexdigest())
