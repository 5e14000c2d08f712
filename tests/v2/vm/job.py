"""What is given to the machine: SHADOW as it was built, the cluster's own programs, an image, certificates, scripts."""
from __future__ import annotations

import shutil
from pathlib import Path

from lab import cluster, host, images, packages, programs
from lab.run import Failure, run
from lab.ui import Board

from . import machine, store

V2 = Path(__file__).resolve().parent.parent
ROOT = V2.parent.parent
GUEST = V2 / "guest"
OUT = ROOT / "target/x86_64-unknown-linux-gnu/release"
OURS = ("shadow", "shadow-runc")
IMAGE = "localhost/v2:1"
IMAGES = tuple(f"target/image/{name}.tar" for name in ("shadow", "examples"))
OBJECTS = {"install.yaml": "overlay", "samples.yaml": "samples"}
PACKAGES = ["default-jre-headless", "passwd"]
# Read by a container, it fills its page cache.
FILL = 96 << 20
NODE = "v2"
NAMES = {"operator": "operator.shadow.internal", "tls": f"{NODE}.agent.shadow.internal"}


def make(what: str, folder: Path, patience: float, board: Board) -> None:
    cluster.provide(board)
    _scripts(folder, what)
    (folder / "patience").write_text(str(patience))
    {"runtime": _runtime, "cluster": _cluster}[what](folder, board)


def _runtime(folder: Path, board: Board) -> None:
    """For the machine that has no control plane."""
    _go("tests/v2/cri", "v2-cri")
    files = [*(OUT / name for name in OURS), *(programs.CONTAINERD.binary(name) for name in programs.CONTAINERD.programs)]
    (folder / "bin").mkdir()
    for file in files:
        if not file.exists():
            raise Failure(f"{file} is not there: make build")
        shutil.copy2(file, folder / "bin")
    shutil.copy2(OUT / "v2-cri", folder / "bin/cri")
    with machine.folder() as aside:
        archive = Path(aside) / "v2.tar"
        _image(archive, board)
        store.make(folder / "containerd", [images.pause(), archive])
    _certificates(folder / "certificates")


def _cluster(folder: Path, _: Board) -> None:
    """For the machine that is a whole cluster: the cluster tool with all that it would build, and what is installed there."""
    shutil.copytree(ROOT / "tests/cluster", folder / "repository/tests/cluster")
    (folder / "cache").mkdir()
    for entry in cluster.entries():
        run(["cp", "-a", entry, folder / "cache"], timeout=300)
    archives = [ROOT / image for image in IMAGES]
    for archive in archives:
        if not archive.exists():
            raise Failure(f"{archive} is not there: make image examples-image")
    store.make(folder / "containerd", [images.pause(), *archives])
    (folder / "objects").mkdir()
    for name, overlay in OBJECTS.items():
        text = run([programs.KUBERNETES.binary("kubectl"), "kustomize", V2 / overlay])
        (folder / "objects" / name).write_text(text)
    (folder / "bin").mkdir()
    # Its version is part of what is built with it.
    (folder / "bin/go").write_text(f"#!/bin/sh\necho {host.go_version()}\n")
    (folder / "bin/go").chmod(0o755)


def _scripts(folder: Path, what: str) -> None:
    for file in GUEST.iterdir():
        if file.is_file():
            shutil.copy2(file, folder)
    (folder / "what").write_text(what)


def _go(source: str, name: str) -> None:
    run(["go", "build", "-C", ROOT / source, "-trimpath", "-ldflags=-s -w", "-o", OUT / name, "."],
        env={"CGO_ENABLED": "0", "GOFLAGS": "-mod=readonly -buildvcs=false"}, timeout=600)


def _image(out: Path, board: Board) -> None:
    _go("tests/programs/image/go", "v2-go-counter")
    layer = packages.layer(board, PACKAGES)
    aside = out.parent
    with (aside / "fill").open("wb") as fill:
        fill.truncate(FILL)
    files = [(OUT / "v2-go-counter", "/go-counter"), (OUT / "examples/counter", "/counter"), (aside / "fill", "/fill"),
             *((file, f"/{file.name}") for file in _classes(aside / "java", layer[0]))]
    images.make(out, IMAGE, [], files, below=[layer])


def _classes(root: Path, layer: Path) -> list[Path]:
    """What the JVM's own compiler makes of its program, here: an emulated processor would compile it for minutes."""
    root.mkdir()
    run(["tar", "-xf", layer, "-C", root], timeout=120)
    shutil.copy2(ROOT / "tests/programs/image/Counter.java", root)
    run(["unshare", "--mount", "--pid", "--fork", f"--mount-proc={root}/proc", "chroot", root,
         "java", "-m", "jdk.compiler/com.sun.tools.javac.Main", "-d", "/", "/Counter.java"], timeout=120)
    return sorted(root.glob("Counter*.class"))


def _certificates(folder: Path) -> None:
    """An authority, the operator's and the agent's, named as the product names them."""
    folder.mkdir()
    authority = ["-subj", "/CN=v2", "-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=critical,keyCertSign"]
    _request(folder / "ca", authority)
    for file, name in NAMES.items():
        _request(folder / file, ["-subj", f"/CN={name}", "-CA", folder / "ca.crt", "-CAkey", folder / "ca.key",
                                 "-addext", f"subjectAltName=DNS:{name}", "-addext", "basicConstraints=critical,CA:FALSE",
                                 "-addext", "extendedKeyUsage=serverAuth,clientAuth"])
    (folder / "ca.key").unlink()


def _request(path: Path, extra: list[str | Path]) -> None:
    run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-config", "/dev/null",
         "-days", "2", "-keyout", f"{path}.key", "-out", f"{path}.crt", *extra])
