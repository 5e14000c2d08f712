"""The Go programs: Kubernetes, containerd, etcd, CoreDNS, a driver for volumes, built from their published modules.

Guarantees: versions come from programs/*/go.mod and nowhere else, contents are pinned by the
go.sum beside it; the programs say their real version; each module is one cache entry, laid
out as a layer for a root file system (usr/bin/NAME).
"""
from __future__ import annotations

import os
import re
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from . import cache
from .config import PROGRAMS
from .host import go_version
from .run import Failure, last_lines, run
from .ui import Board, Step

BUILD_LIMIT = 3600.0
FLAGS = ["-trimpath", "-gcflags=all=-dwarf=false"]      # nobody debugs them: an eighth less to compile
STAMP = "usr/bin"


@dataclass(frozen=True)
class Module:
    """One go.mod with the programs that are built from it."""

    name: str
    path: str                       # the module whose version names the release
    programs: dict[str, str]        # program: import path
    stamps: tuple[str, ...] = ()    # variables that hold the version; {v} {major} {minor}

    @property
    def folder(self) -> Path:
        return PROGRAMS / self.name

    @property
    def version(self) -> str:
        found = re.search(rf"{re.escape(self.path)} (v\S+)", (self.folder / "go.mod").read_text())
        if not found:
            raise Failure(f"{self.folder}/go.mod does not require {self.path}")
        return found[1]

    @property
    def ldflags(self) -> str:
        major, minor = self.version.lstrip("v").split(".")[:2]
        stamps = [stamp.format(v=self.version, major=major, minor=minor) for stamp in self.stamps]
        return " ".join(["-s", "-w", *(f"-X {stamp}" for stamp in stamps)])

    @property
    def entry(self) -> Path:
        """Where the built programs are, or would be."""
        own = sorted(path for place in self.programs.values() if place.startswith("./")
                     for path in (self.folder / place).iterdir())
        files = [path.read_bytes() for path in (self.folder / "go.mod", self.folder / "go.sum", *own)]
        return cache.path_of(self.name, [*files, self.ldflags, " ".join(FLAGS), repr(sorted(self.programs.items())),
                                         STAMP, go_version()])

    def binary(self, program: str) -> Path:
        return self.entry / STAMP / program


def _kubernetes(*programs: str) -> dict[str, str]:
    return {program: f"k8s.io/kubernetes/cmd/{program}" for program in programs}


# Built in Kubernetes' module: they share most of what they are made of.
COREDNS, VOLUMES = "coredns", "volumes"


def _containerd(*programs: str) -> dict[str, str]:
    return {program: f"github.com/containerd/containerd/v2/cmd/{program}" for program in programs}


KUBERNETES = Module(
    "kubernetes", "k8s.io/kubernetes",
    {**_kubernetes("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kube-proxy", "kubelet", "kubectl"),
     COREDNS: f"./{COREDNS}", VOLUMES: f"./{VOLUMES}"},
    tuple(f"k8s.io/{place}.{stamp}" for place in ("component-base/version", "client-go/pkg/version")
          for stamp in ("gitVersion={v}", "gitMajor={major}", "gitMinor={minor}", "gitTreeState=clean")))
CONTAINERD = Module(
    "containerd", "github.com/containerd/containerd/v2", _containerd("containerd", "containerd-shim-runc-v2", "ctr"),
    ("github.com/containerd/containerd/v2/version.Version={v}",))
ETCD = Module("etcd", "go.etcd.io/etcd/server/v3", {"etcd": "go.etcd.io/etcd/server/v3"})
ALL = (ETCD, CONTAINERD, KUBERNETES)


def build_all(board: Board) -> None:
    """One after the other: each build keeps all cores busy by itself."""
    for module in ALL:
        if module.entry.exists():
            os.utime(module.entry)
            continue
        with board.step(module.name, f"{module.version}: reading the module") as step:
            cache.entry(module.entry, lambda folder: _build(module, folder, step))
            step.say(f"{module.version} built")


def _build(module: Module, folder: Path, step: Step) -> None:
    target = folder / STAMP
    target.mkdir(parents=True)
    env = {"CGO_ENABLED": "0", "GOFLAGS": "-mod=readonly -buildvcs=false", "GOWORK": "off", "GOOS": "linux"}
    step.say(f"{module.version}: fetching what it is made of")
    packages = list(module.programs.values())
    listing = run(["go", "list", "-deps", *packages], cwd=module.folder, env=env, timeout=BUILD_LIMIT)
    total = len([line for line in listing.splitlines() if line and not line.startswith("go: ")])
    if len(packages) > 1:           # compile everything that they share in one go, then link
        _compile(module, ["-o", str(target) + "/"], packages, total, env, step)
    else:
        _compile(module, ["-o", str(target / next(iter(module.programs)))], packages, total, env, step)
    absent = [name for name in module.programs if not (target / name).exists()]
    if absent:
        raise Failure(f"go built no {', '.join(absent)}")


def _compile(module: Module, output: list[str], packages: list[str], total: int, env: dict[str, str],
             step: Step) -> None:
    step.say(f"{module.version}: compiling and linking")
    argv = ["go", "build", "-v", *FLAGS, "-ldflags", module.ldflags, *output, *packages]
    work = subprocess.Popen(argv, cwd=module.folder, env={**os.environ, **env}, stdin=subprocess.DEVNULL,
                            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    limit, lines = time.monotonic() + BUILD_LIMIT, []
    try:
        for line in work.stderr or ():
            lines.append(line)
            step.say(f"{module.version}: compiling, {len(lines)} of at most {total} packages")
            if time.monotonic() > limit:
                raise Failure(f"building {module.name} took longer than {BUILD_LIMIT / 60:.0f} min")
        if work.wait(60) != 0:
            raise Failure(f"building {module.name} failed:\n{last_lines(''.join(lines))}")
    finally:
        if work.poll() is None:
            work.kill()
            work.wait()
