"""The cluster's own test: real faults on the real cluster.

Guarantees: every check uses the command line as a user would. Without an argument all checks
run and the cluster is taken down and made again; `--keep` leaves those out that would take
it down, so that it can be run beside other users of it; words choose checks by name.
Ends with a line `N passed, N failed`.
"""
from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any, Callable

from . import cleanup, images, state
from .api import until
from .cgroups import Cgroups
from .config import HERE, STATE, netns
from .run import Failure, run
from .testpods import Pods

Check = Callable[[], None]
CHECKS: list[tuple[str, Check]] = []


def check(kind: str) -> Callable[[Check], Check]:
    """Register a check: `alone` needs no cluster, `live` a running one, `down` takes it down."""
    def register(body: Check) -> Check:
        CHECKS.append((kind, body))
        return body
    return register


def cluster(*argv: str, expect: int | None = 0, limit: float = 120) -> str:
    """The tool, as a user calls it: its standard output."""
    done = subprocess.run([str(HERE / "cluster"), *argv], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, text=True, timeout=limit, check=False)
    if expect is not None and done.returncode != expect:
        raise AssertionError(f"cluster {' '.join(argv)}: exit {done.returncode}, not {expect}\n{done.stdout}{done.stderr}")
    return done.stdout


def facts() -> dict[str, Any]:
    return json.loads(cluster("status", "--json", expect=None))


def node(name: str) -> dict[str, Any]:
    return next(one for one in facts()["nodes"] if one["name"] == name)


def wait(what: str, holds: Callable[[], Any], limit: float = 30) -> Any:
    return until(what, holds, limit, lambda: json.dumps(facts(), indent=1)[-800:])


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


@check("live")
def up_again_changes_nothing_and_is_quick() -> None:
    before, began = facts(), time.monotonic()
    cluster("up")
    assert time.monotonic() - began < 3, f"{time.monotonic() - began:.1f} s"
    assert [one["pid"] for one in facts()["nodes"]] == [one["pid"] for one in before["nodes"]]
    assert facts()["running"] and len(before["nodes"]) >= 2 and before["netns"] == "shadow-cp"


@check("live")
def pods_reach_each_other_services_the_api_and_the_broker() -> None:
    with Pods(cluster) as pods:
        one, two = pods.ip("n1"), pods.ip("n2")
        assert f"host={pods.name('n2')}" in pods.fetch(one, f"{two}:8080")
        assert f"host={pods.name('n1')}" in pods.fetch(two, f"{one}:8080")
        for _ in range(6):                  # also a pod that reaches itself through its Service
            assert "host=selftest" in pods.fetch(one, f"{pods.service}:8080")
        assert "HTTPS server" in pods.fetch(one, "10.96.0.1:443")
        assert "200 OK" in pods.fetch(two, f"{facts()['broker']['ip']}:15672")
        for where in ("cp", "mq", "n1", "n2"):
            assert "host=selftest" in pods.ask(pods.service, where), where


@check("live")
def a_service_follows_its_pods_at_once() -> None:
    with Pods(cluster) as pods:
        cluster("kubectl", "delete", "pod", pods.name("n1"), "--now")
        time.sleep(0.5)
        seen = {pods.ask(pods.service, "cp", "n2").split("host=")[1].split()[0] for _ in range(12)}
        assert seen == {pods.name("n2")}, seen


@check("live")
def a_drop_in_adds_a_runtime_and_pods_outlive_containerd() -> None:
    drop_in = """version = 3
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.selftest]
  runtime_type = 'io.containerd.runc.v2'
  pod_annotations = ['selftest/*']
  [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.selftest.options]
    BinaryName = '/usr/bin/crun'
"""
    with Pods(cluster) as pods:
        cluster("exec", "n1", "--", "sh", "-c", f"cat > /etc/containerd/conf.d/selftest.toml <<'X'\n{drop_in}X\n")
        try:
            starts, began = node("n1")["services"]["containerd"]["starts"], time.monotonic()
            cluster("exec", "n1", "--", "pkill", "-TERM", "-x", "containerd")
            wait("containerd again", lambda: node("n1")["services"]["containerd"]["starts"] > starts
                 and "io.containerd" in cluster("exec", "n1", "--", "ctr", "plugins", "ls", expect=None))
            print(f"      containerd back after {time.monotonic() - began:.1f} s")
            merged = cluster("exec", "n1", "--", "containerd", "config", "dump")
            assert "runtimes.selftest]" in merged and "runtimes.runc]" in merged and "/usr/bin/crun" in merged
            assert "host=" in pods.ask(pods.ip("n1"), "cp"), "the pod did not outlive containerd"
            pods.run_with_runtime("n1", "selftest")
        finally:
            cluster("exec", "n1", "--", "rm", "/etc/containerd/conf.d/selftest.toml")
            cluster("exec", "n1", "--", "pkill", "-TERM", "-x", "containerd")


@check("live")
def the_kubelet_makes_a_checkpoint() -> None:
    with Pods(cluster) as pods:
        path = f"/api/v1/nodes/n1/proxy/checkpoint/default/{pods.name('n1')}/main"
        assert ".tar" in cluster("kubectl", "create", "--raw", path, "-f", "/dev/null")


@check("live")
def a_command_that_hangs_is_ended() -> None:
    began = time.monotonic()
    cluster("exec", "n1", "--timeout", "1", "--", "sleep", "30", expect=124)
    assert time.monotonic() - began < 4
    cluster("exec", "n1", "--", "sh", "-c", "exit 7", expect=7)


@check("live")
def a_cut_node_is_silent_until_healed() -> None:
    with Pods(cluster) as pods:
        cluster("node", "cut", "n2")
        try:
            assert node("n2")["state"] == "cut" and not pods.answers("n2") and pods.answers("n1")
        finally:
            cluster("node", "heal", "n2")
        wait("n2 healed", lambda: pods.answers("n2"))


@check("live")
def a_frozen_node_stands_still_until_thawed() -> None:
    with Pods(cluster) as pods:
        cluster("node", "freeze", "n1")
        try:
            assert node("n1")["state"] == "frozen" and not pods.answers("n1") and pods.answers("n2")
            assert "n1" in cluster("exec", "n1", "--", "hostname")      # one can still look
        finally:
            cluster("node", "thaw", "n1")
        wait("n1 thawed", lambda: pods.answers("n1"))


@check("live")
def a_killed_node_vanishes_and_boots_with_its_disk() -> None:
    with Pods(cluster) as pods:
        cluster("exec", "n2", "--", "sh", "-c", "echo kept > /etc/selftest")
        old = node("n2")["pid"]
        cluster("node", "kill", "n2")
        assert state.start_time(old) is None and node("n2")["state"] == "dead" and not pods.answers("n2")
        assert not Cgroups().processes(netns("n2"))
        cluster("status", expect=1)
        began = time.monotonic()
        cluster("node", "start", "n2")
        wait("the pod on n2 again", lambda: pods.answers("n2"), 90)
        print(f"      its pod answers {time.monotonic() - began:.1f} s after the start")
        assert "kept" in cluster("exec", "n2", "--", "cat", "/etc/selftest") and node("n2")["pid"] != old
        wait("all running again", lambda: facts()["running"])


@check("live")
def up_mends_what_is_broken() -> None:
    cluster("node", "kill", "n1")
    cluster("node", "freeze", "n2")
    cluster("broker", "cut")
    assert not facts()["running"]
    cluster("up")
    assert facts()["running"]


@check("live")
def the_broker_keeps_what_is_durable() -> None:
    def management(method: str, path: str, body: str) -> str:
        return cluster("in", "mq", "--", "curl", "-s", "-u", "shadow:shadow", "-X", method, "-d", body,
                       f"http://127.0.0.1:15672/api/{path}")
    management("PUT", "queues/%2f/selftest", '{"durable":true}')
    management("POST", "exchanges/%2f/amq.default/publish", json.dumps(
        {"routing_key": "selftest", "payload": "still here", "payload_encoding": "string", "properties": {"delivery_mode": 2}}))
    for fault in (["restart"], ["kill", "start"]):
        for word in fault:
            cluster("broker", word)
        assert "still here" in management("POST", "queues/%2f/selftest/get", json.dumps(
            {"count": 1, "ackmode": "ack_requeue_true", "encoding": "auto"})), fault
    management("DELETE", "queues/%2f/selftest", "")
    assert "rabbit@mq" in cluster("exec", "mq", "--", "rabbitmqctl", "-q", "status")


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


def main(argv: list[str]) -> int:
    options = argparse.ArgumentParser(prog="selftest", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--keep", action="store_true", help="leave out what takes the cluster down")
    options.add_argument("names", nargs="*", help="only checks whose name contains one of these")
    args = options.parse_args(argv)
    passed, failed = 0, 0
    for kind, body in CHECKS:
        if (args.keep and kind == "down") or (args.names and not any(name in body.__name__ for name in args.names)):
            continue
        began = time.monotonic()
        try:
            if kind != "alone":
                cluster("up", limit=3600)
            body()
            passed, mark = passed + 1, "ok  "
        except (AssertionError, Failure, OSError, ValueError, KeyError, subprocess.SubprocessError):
            failed, mark = failed + 1, "FAIL"
            traceback.print_exc(file=sys.stdout)
        print(f"{mark} {body.__name__.replace('_', ' ')} ({time.monotonic() - began:.1f} s)", flush=True)
    print(f"{passed} passed, {failed} failed")
    return 1 if failed or not passed else 0
