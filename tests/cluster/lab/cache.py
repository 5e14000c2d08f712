"""What is built or fetched, kept per user and named by what it was made from.

Guarantees: an entry is complete or absent (made aside, then renamed); the same inputs give
the same entry, whichever clone asks; two clones that ask at once make it once.
"""
from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import tempfile
import time
from pathlib import Path
from typing import Callable, Iterable

UNUSED_DAYS = 30


def root() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "shadow-cluster"


def path_of(what: str, inputs: Iterable[str | bytes]) -> Path:
    """Where the entry made from these inputs is, or would be."""
    digest = hashlib.sha256()
    for part in inputs:
        data = part.encode() if isinstance(part, str) else part
        digest.update(len(data).to_bytes(8, "big") + data)
    return root() / f"{what}-{digest.hexdigest()[:16]}"


def entry(path: Path, make: Callable[[Path], None]) -> tuple[Path, bool]:
    """The entry, and whether it had to be made now by filling the given empty folder."""
    if path.exists():
        os.utime(path)
        return path, False
    root().mkdir(parents=True, exist_ok=True)
    with open(root() / f".{path.name}.lock", "w") as guard:
        fcntl.flock(guard, fcntl.LOCK_EX)
        if path.exists():
            return path, False
        for stale in root().glob(f".{path.name}-*.partial"):
            shutil.rmtree(stale, ignore_errors=True)
        partial = Path(tempfile.mkdtemp(prefix=f".{path.name}-", suffix=".partial", dir=root()))
        try:
            partial.chmod(0o755)
            make(partial)
            partial.rename(path)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise
    return path, True


def prune(keep: Iterable[Path]) -> list[Path]:
    """Remove entries that nothing has used for a month, and those that `keep` does not name."""
    wanted, removed = set(keep), []
    for path in sorted(root().glob("[!.]*")) if root().exists() else []:
        old = time.time() - path.stat().st_mtime > UNUSED_DAYS * 86400
        if path not in wanted or old:
            shutil.rmtree(path)
            removed.append(path)
    return removed
