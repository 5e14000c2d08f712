"""Checks of the running cluster, faults included; each leaves it as it was."""
from __future__ import annotations

import base64
import http.client
import json
import time

from lab import state
from lab.api import inside
from lab.cgroups import Cgroups
from lab.config import BROKER, BROKER_IP, BROKER_PASSWORD, BROKER_USER, netns

from .pods import Pods
from .runner import check, cluster, facts, node, wait


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
def a_slow_line_delays_and_loses_until_it_is_healed() -> None:
    def ping(where: str = "n2", target: str = "10.200.0.11", count: int = 20) -> tuple[int, float]:
        text = cluster("exec", where, "--", "ping", "-c", str(count), "-i", "0.05", "-W", "1", target, expect=None)
        answered = int(text.split(" received")[0].split()[-1])
        return answered, float(text.rsplit("= ", 1)[1].split("/")[1]) if answered else 0.0
    try:
        cluster("node", "slow", "n2", "--delay", "60")
        answered, mean = ping()
        assert answered == 20 and 60 <= mean < 90, (answered, mean)
        assert node("n2")["state"] == "slow" and not facts()["running"]
        cluster("node", "slow", "n2", "--loss", "40")
        answered, mean = ping()
        assert 1 <= answered < 20 and mean < 20, (answered, mean)
        cluster("node", "slow", "n2", "--loss", "100", "--to", "n1")
        assert ping()[0] == 0 and ping(target="10.200.0.20")[0] == 20
        cluster("node", "slow", "n2", expect=1)
    finally:
        cluster("node", "heal", "n2")
    answered, mean = ping()
    assert answered == 20 and mean < 10 and facts()["running"], (answered, mean)


@check("live")
def a_full_disk_is_full_until_it_is_healed() -> None:
    def write(size: str, expect: int) -> None:
        cluster("exec", "n1", "--", "dd", "if=/dev/zero", "of=/var/lib/shadow/selftest", f"bs={size}", "count=8", expect=expect)
    try:
        cluster("node", "fill", "n1")
        assert node("n1")["state"] == "full"
        write("1M", 1)
        cluster("node", "fill", "n1", "--leave", "20")
        write("1M", 0)
        write("4M", 1)
        cluster("exec", "n1", "--", "sh", "-c", "echo elsewhere > /etc/selftest")
    finally:
        cluster("node", "heal", "n1")
    write("4M", 0)
    cluster("exec", "n1", "--", "rm", "/var/lib/shadow/selftest")
    assert node("n1")["state"] == "running"


@check("live")
def one_program_of_a_node_is_killed_and_no_other() -> None:
    before = {name: one["pid"] for name, one in node("n1")["services"].items()}
    with Pods(cluster) as pods:
        assert "kube-proxy" in cluster("node", "kill", "n1", "kube-proxy")
        wait("kube-proxy again", lambda: node("n1")["services"]["kube-proxy"]["pid"] not in (0, before["kube-proxy"]))
        now = {name: one["pid"] for name, one in node("n1")["services"].items()}
        assert {**now, "kube-proxy": 0} == {**before, "kube-proxy": 0} and pods.answers("n1")
        began = time.monotonic()
        cluster("node", "kill", "n1", "no-such-program", "--wait", "1", expect=1)
        cluster("node", "kill", "n1", "kubelet", "--having", "no-such-program", expect=1)
        assert 1 <= time.monotonic() - began < 4


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
        def work() -> str:
            connection = http.client.HTTPConnection(BROKER_IP, 15672, timeout=5)
            word = base64.b64encode(f"{BROKER_USER}:{BROKER_PASSWORD}".encode()).decode()
            connection.request(method, f"/api/{path}", body, {"Authorization": f"Basic {word}"})
            return connection.getresponse().read().decode()
        return inside(BROKER, work)
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
