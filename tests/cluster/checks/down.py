"""Checks that take the cluster down: in order, by a crash, and over another's remains."""
from __future__ import annotations

import signal
import subprocess
import time

from lab import cleanup
from lab.cgroups import Cgroups
from lab.config import HERE, STATE, netns
from lab.run import run

from .runner import check, cluster, facts


@check("down")
def down_leaves_nothing_and_up_is_warm() -> None:
    cluster("down")
    assert cleanup.leftovers() == []
    cluster("status", expect=1)
    cluster("down")
    began = time.monotonic()
    cluster("up")
    assert time.monotonic() - began < 30 and facts()["running"], f"{time.monotonic() - began:.1f} s"
    print(f"      up, warm: {time.monotonic() - began:.1f} s")


@check("down")
def a_crash_half_way_leaves_nothing_after_down() -> None:
    for moment in (0.3, 0.5, 0.8, 1.5, 3.0):
        cluster("down")
        half = subprocess.Popen([str(HERE / "cluster"), "up"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(moment)
        half.send_signal(signal.SIGKILL)
        half.wait()
        if moment != 0.8:
            cluster("down")
            assert cleanup.leftovers() == [], moment
        else:                               # and the other way out of it
            cluster("up")
            assert facts()["running"]


@check("down")
def what_another_cluster_left_is_no_obstacle() -> None:
    cluster("down")
    run(["ip", "netns", "add", netns("n1")])
    run(["ip", "netns", "add", netns("sw")])
    (STATE / "machines/n1/root").mkdir(parents=True)
    run(["mount", "-t", "tmpfs", "left", STATE / "machines/n1/root"])
    Cgroups().make(netns("n1"))
    (Cgroups().folders(netns("n1"))[0] / "deep").mkdir()
    cluster("up")
    assert facts()["running"]


@check("down")
def three_nodes_when_asked() -> None:
    cluster("up", "--nodes", "3")
    assert [one["name"] for one in facts()["nodes"]] == ["n1", "n2", "n3"] and facts()["running"]
    cluster("down")
    assert cleanup.leftovers() == []
    cluster("up")
    assert len(facts()["nodes"]) == 2
