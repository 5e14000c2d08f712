"""Container images without a container engine: docker-archive tars of files, on nothing or on a layer.

Guarantees: the same files give the same bytes, so an image is its content; the first thing in the
tar is the configuration, whose name is the image's id; parents of every file exist in the layer;
the pause image is built from a few lines of C.
"""
from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
from pathlib import Path
from typing import Any, BinaryIO, Iterable, Mapping, Sequence

from . import cache
from .config import GOARCH, PAUSE_IMAGE
from .run import Failure, run

PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
PAUSE_C = """
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>
static void quit(int s) { (void)s; _exit(0); }
static void reap(int s) { (void)s; while (waitpid(-1, 0, WNOHANG) > 0) {} }
int main(void) {
    signal(SIGINT, quit);
    signal(SIGTERM, quit);
    signal(SIGCHLD, reap);
    for (;;) pause();
}
"""


def make(out: Path, reference: str, entrypoint: Sequence[str], files: Iterable[tuple[Path, str]],
         env: Sequence[str] = (), below: Sequence[tuple[Path, str]] = (), volumes: Mapping[str, Sequence[str]] | None = None) -> None:
    """Write the image `reference` to `out`; `files` are (here, path in the image), `below` other layers: (tar, digest).

    `volumes`: the same image once more under another reference, with these folders as VOLUMEs.
    """
    layer = _layer(files)
    digests = [*(digest for _, digest in below), "sha256:" + hashlib.sha256(layer).hexdigest()]
    lower = [(f"below-{at}.tar", tar) for at, (tar, _) in enumerate(below)]
    made = {"Entrypoint": list(entrypoint), "Env": [PATH, *env], "WorkingDir": "/"}
    configs = {reference: _config(made, digests)}
    for other, folders in (volumes or {}).items():
        configs[other] = _config({**made, "Volumes": {folder: {} for folder in folders}}, digests)
    names = {reference: hashlib.sha256(config).hexdigest() + ".json" for reference, config in configs.items()}
    manifest = _json([{"Config": names[reference], "RepoTags": [reference], "Layers": [*(path for path, _ in lower), "layer.tar"]}
                      for reference in configs])
    out.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(out, "w", format=tarfile.GNU_FORMAT) as tar:
        for other, config in configs.items():
            _add(tar, names[other], config, 0o644)
        for path, source in lower:
            with open(source, "rb") as data:
                _stream(tar, path, data)
        for path, text in (("layer.tar", layer), ("manifest.json", manifest)):
            _add(tar, path, text, 0o644)


def _config(made: dict[str, Any], digests: Sequence[str]) -> bytes:
    return _json({
        "architecture": GOARCH, "os": "linux", "created": "1970-01-01T00:00:00Z", "config": made,
        "rootfs": {"type": "layers", "diff_ids": list(digests)},
        "history": [{"created": "1970-01-01T00:00:00Z"}] * len(digests),
    })


def _layer(files: Iterable[tuple[Path, str]]) -> bytes:
    wanted: dict[str, Path | None] = {"tmp": None}
    for source, target in files:
        inside = target.strip("/")
        if not inside or not source.exists():
            raise Failure(f"{source}={target}: no such file, or no place for it")
        for item in [source, *sorted(source.rglob("*"))] if source.is_dir() else [source]:
            path = inside if item == source else f"{inside}/{item.relative_to(source)}"
            wanted[path] = item
            for parent in list(Path(path).parents)[:-1]:
                wanted.setdefault(str(parent), None)
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for path, origin in sorted(wanted.items(), key=lambda pair: pair[0]):
            if origin is None or origin.is_dir():
                _add(tar, path, None, 0o1777 if path == "tmp" else 0o755)
            else:
                _add(tar, path, origin.read_bytes(), 0o755 if origin.stat().st_mode & 0o111 else 0o644)
    return buffer.getvalue()


def _add(tar: tarfile.TarFile, path: str, data: bytes | None, mode: int) -> None:
    info = tarfile.TarInfo(path)
    info.mode, info.mtime = mode, 0
    if data is None:
        info.type = tarfile.DIRTYPE
        tar.addfile(info)
    else:
        info.size = len(data)
        tar.addfile(info, io.BytesIO(data))


def _stream(tar: tarfile.TarFile, path: str, data: BinaryIO) -> None:
    info = tarfile.TarInfo(path)
    info.mode, info.mtime, info.size = 0o644, 0, os.fstat(data.fileno()).st_size
    tar.addfile(info, data)


def _json(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def entry() -> Path:
    return cache.path_of("pause", [PAUSE_C, PAUSE_IMAGE, GOARCH, PATH])


def pause() -> Path:
    """The image of the process that holds a pod's namespaces, as a tar in the cache."""
    path, _ = cache.entry(entry(), _make_pause)
    return path / "pause.tar"


def _make_pause(folder: Path) -> None:
    source, program = folder / "pause.c", folder / "pause"
    source.write_text(PAUSE_C)
    run(["gcc", "-Os", "-static", "-s", "-Wall", "-Werror", "-o", program, source])
    make(folder / "pause.tar", PAUSE_IMAGE, ["/pause"], [(program, "/pause")])
