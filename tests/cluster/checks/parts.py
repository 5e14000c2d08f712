"""Checks of single parts; they need no cluster."""
from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path

from lab import images, state
from lab.cgroups import Cgroups

from .runner import check


@check("alone")
def an_image_is_its_content() -> None:
    with tempfile.TemporaryDirectory() as folder:
        here = Path(folder)
        (here / "file").write_text("x")
        for out in ("a.tar", "b.tar"):
            images.make(here / out, "localhost/x:1", ["/x"], [(here / "file", "/deep/down/x")], ["A=b"])
            os.utime(here / "file")
        assert (here / "a.tar").read_bytes() == (here / "b.tar").read_bytes()


@check("alone")
def a_number_used_again_is_another_process() -> None:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "pid"
        state.record(file, os.getpid())
        assert state.recorded(file) == os.getpid()
        file.write_text(json.dumps({"pid": os.getpid(), "start": "1"}))
        assert state.recorded(file) is None


@check("alone")
def cgroup_v2_is_one_delegated_tree() -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for place in (root, root / "shadow-n1"):
            place.mkdir(exist_ok=True)
            (place / "cgroup.controllers").write_text("cpuset cpu io memory pids rdma\n")
            (place / "cgroup.subtree_control").write_text("")
        groups = Cgroups(root)
        assert groups.version == 2
        groups.make("shadow-n1")
        groups.join("shadow-n1")
        assert (root / "shadow-n1/init/cgroup.procs").read_text() == str(os.getpid())
        assert (root / "shadow-n1/cgroup.subtree_control").read_text().startswith("+")
        assert groups.existing() == {"shadow-n1"} and groups.processes("shadow-n1") == {os.getpid()}
        (root / "shadow-n1/cgroup.events").write_text("populated 1\nfrozen 1\n")
        (root / "shadow-n1/cgroup.freeze").write_text("0")
        groups.freeze("shadow-n1", True)
        assert (root / "shadow-n1/cgroup.freeze").read_text() == "1"
