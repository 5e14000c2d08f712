"""Checks of single parts; they need no cluster."""
from __future__ import annotations

import json
import os
import subprocess
import tempfile
from pathlib import Path

from lab import disk, hold, images, limits, state, victims
from lab.cgroups import Cgroups
from lab.run import run
from lab.ui import Board

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
def a_disk_is_as_full_as_wanted_and_then_as_empty_as_before() -> None:
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "disk"
        disk.make(place)
        try:
            empty = os.statvfs(place).f_bavail
            for leave in (0, 5 << 20, 0):
                free = disk.fill(place, leave)
                assert leave - (1 << 20) <= free <= leave and disk.is_full(place), (leave, free)
                (place / "file").write_bytes(b"")
                with open(place / "file", "wb") as file:
                    try:
                        file.write(bytes(leave + (1 << 20)))
                        assert False, "more was written than fits"
                    except OSError:
                        pass
                (place / "file").unlink()
            disk.free(place)
            assert not disk.is_full(place) and os.statvfs(place).f_bavail == empty
        finally:
            run(["umount", place])


@check("alone")
def a_program_is_its_name_and_some_of_its_words() -> None:
    line = ["/opt/shadow/shadow-runc", "--root", "/run/x", "create", "id"]
    for words, expected in ((["shadow-runc"], True), (["shadow-runc", "create"], True), (["shadow-runc", "start"], False),
                            (["shadow"], False), (["create"], False)):
        assert victims._is_called(line, words) == expected, words   # noqa: SLF001
    assert victims.has_started(os.getpid(), "no-such-program") is False


@check("alone")
def criu_is_told_limits_only_where_it_would_be_refused() -> None:
    assert limits.needed("Name:\tx\nCapBnd:\t000001fffeffffff\n")
    assert not limits.needed("Name:\tx\nCapBnd:\t000001ffffffffff\n")
    assert not limits.needed("")
    if limits.needed():
        limits.build(Board())
        library = limits.entry() / limits.LIBRARY
        other = subprocess.Popen(["sleep", "60"], user=1001, stdin=subprocess.DEVNULL)
        try:
            ask = ["prlimit", "--raw", "--noheadings", "--output", "SOFT,HARD", "--nofile", "--pid", str(other.pid)]
            wanted = next(line for line in Path(f"/proc/{other.pid}/limits").read_text().splitlines() if "open files" in line)
            assert run(ask, env={"LD_PRELOAD": str(library)}).split() == wanted.split()[3:5]
            assert "not permitted" in run(ask, check=False), "is it still needed?"
            assert "not permitted" in run([*ask[:-3], "--nofile=7", *ask[-2:]], env={"LD_PRELOAD": str(library)}, check=False)
        finally:
            other.kill()
            other.wait()


@check("alone")
def packets_are_counted_as_the_kernel_numbers_them() -> None:
    header = hold.attribute(9, b"abc") + hold.attribute(1, (77).to_bytes(4, "big") + b"\x08\x00\x01")
    datagram = hold.message(7, hold.PACKET, header) + hold.message(7, hold.PACKET, hold.attribute(1, bytes(7)))
    found = hold.messages(datagram)
    assert [kind for kind, _ in found] == [hold.SUBSYSTEM << 8] * 2
    assert [hold.packet_id(body) for _, body in found] == [77, 0]


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
