"""With a control plane: SHADOW is installed on two nodes; a counter without a queue and a consumer under load are evicted twice
each, and nothing is lost, doubled or seen of neighbours."""
import http.client
import json
import os
import subprocess
import sys
import threading
import time
import traceback
from pathlib import Path

from inside import look
from node import JOB, run
from report import PATIENCE, check, close, eventually, same, say

TOOL = JOB / "repository/tests/cluster"
sys.path.insert(0, str(TOOL))
os.environ.update({"SHADOW_CLUSTER_PATIENCE": str(PATIENCE), "SHADOW_CLUSTER_CONTAINERD": str(JOB / "containerd"),
                   "GOMAXPROCS": "1", "GOGC": "400"})

import objects  # noqa: E402
from lab import api  # noqa: E402
from lab.config import CONTROL_PLANE, SWITCH, netns  # noqa: E402

# Nodes that are made of namespaces cannot load them.
MODULES = """
    overlay veth bridge loop tun fuse nft_compat nf_tables ip_tables iptable_nat iptable_filter iptable_mangle xt_comment xt_conntrack
    xt_statistic xt_MASQUERADE xt_mark unix_diag inet_diag tcp_diag udp_diag raw_diag packet_diag netlink_diag br_netfilter
""".split()
NAMESPACE = "/api/v1/namespaces/demo"
MIGRATIONS = "/apis/migration.ms2m.io/v1alpha1/namespaces/demo/statefulmigrations"
SEEN = {"cgroup namespace of its own": True, "/proc/self/cgroup": "0::/", "memory.max": str(256 << 20)}
PORT = 8080
ENDED = ("Completed", "Failed")
# Between two writes: each costs an emulated processor some tenths of a second.
WRITE = 2
# Given to a server that stands still for the time of its freeze.
CALL = 5


def main():
    try:
        install()
        a_slow_line()
        counter, consumer = App("counter"), App("consumer")
        moves(counter, counts_on)
        tool("broker", "thaw")
        scale(counter=0, consumer=1, producer=1)
        moves(consumer, applies_each_once)
    except Exception:  # whatever it was: it is told, with what SHADOW says
        check("to its end", False, traceback.format_exc())
        for part in ("operator", "agent", "webhook"):
            say(f"--- {part}\n" + tool("kubectl", "-n", "shadow-system", "logs", "--tail=30", "--prefix",
                                       "-l", f"app.kubernetes.io/name=shadow-{part}", must=False))
        say(tool("kubectl", "-n", "demo", "get", "pods,statefulmigrations", "-o", "wide", must=False))
    return close()


def tool(*argv, limit=300, must=True):
    """The cluster tool; how long it took is told."""
    began = time.monotonic()
    text = run(sys.executable, "-B", TOOL / "cluster", *argv, check=must, limit=limit)
    say(f"     cluster {' '.join(argv[:2])}: {time.monotonic() - began:.0f} s")
    return text


def install():
    for module in MODULES:
        subprocess.run(["modprobe", module], check=False, capture_output=True)
    tool("up")
    # Until it is needed: an emulated processor is not given away.
    tool("broker", "freeze")
    applied("install")
    for kind, name in (("deployments", "shadow-operator"), ("deployments", "shadow-webhook"), ("daemonsets", "shadow-agent")):
        eventually(f"{name} is ready", 120, lambda kind=kind, name=name: _rolled_out(kind, name))
    eventually("what both nodes can restore is published", 120, _published, pause=2)
    applied("samples")


def applied(what):
    text = (JOB / f"objects/{what}.yaml").read_text()
    began = time.monotonic()
    eventually(f"{what} is applied", 60, lambda: objects.apply(text) or True, pause=5)
    say(f"     {what}: {time.monotonic() - began:.0f} s")


def scale(**wanted):
    """Samples that are to run, and how many of each."""
    for name, count in wanted.items():
        kind = "deployments" if name == "producer" else "statefulsets"
        eventually(f"{name} is scaled", 60, lambda kind=kind, name=name, count=count: objects.scale(kind, name, count) or True)


def a_slow_line():
    """By netem, which this kernel has."""
    tool("node", "slow", "n2", "--delay", "400", "--loss", "5")
    shown = run("ip", "netns", "exec", netns(SWITCH), "tc", "qdisc", "show", "dev", "p-n2")
    check("a slow line is netem's", "netem" in shown and "delay 400ms" in shown and "loss 5%" in shown, shown.strip())
    tool("node", "heal", "n2")
    shown = run("ip", "netns", "exec", netns(SWITCH), "tc", "qdisc", "show", "dev", "p-n2")
    check("and as good as new again", "netem" not in shown, shown.strip())


def _rolled_out(kind, name):
    status = (api.get(f"/apis/apps/v1/namespaces/shadow-system/{kind}/{name}") or {}).get("status", {})
    wanted, ready = ("desiredNumberScheduled", "numberReady") if kind == "daemonsets" else ("replicas", "readyReplicas")
    return status.get(wanted, 0) > 0 and status.get(ready) == status[wanted]


def _published():
    nodes = api.get("/apis/migration.ms2m.io/v1alpha1/nodecapacities") or {}
    return len(nodes.get("items", [])) == 2


class App:
    """One of the samples: a StatefulSet of one pod."""

    def __init__(self, name):
        self.name = name

    def pod(self):
        pod = api.get(f"{NAMESPACE}/pods/{self.name}-0")
        if not pod or not any(one["type"] == "Ready" and one["status"] == "True" for one in pod["status"].get("conditions", [])):
            raise ValueError("it is not ready")
        return pod

    def ready(self):
        return eventually(f"{self.name} is ready", 120, self.pod)

    def ask(self, method, path, body=""):
        return ask(self.pod()["status"]["podIP"], method, path, body)

    def state(self):
        return eventually(f"{self.name} tells its state", 60, lambda: self.ask("GET", "/state"))

    def look(self):
        """Where its process is, as the one that has the pod's uid in its cgroup's name."""
        uid = self.pod()["metadata"]["uid"]
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                mine = (folder / "comm").read_text().strip() == self.name
                if mine and uid.replace("-", "_") in (folder / "cgroup").read_text().replace("-", "_"):
                    return look(int(folder.name))
            except OSError:
                continue
        raise AssertionError(f"{self.name} has no process")

    def evict(self):
        """As `kubectl drain` does: asks again while it is told to. The migration that has ended."""
        before = self.ready()
        body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": f"{self.name}-0", "namespace": "demo"}}
        uid, told = before["metadata"]["uid"], [None]

        def tell(answer=None):
            status = _migration(uid)
            step = {key: status.get(key) for key in ("step", "way", "reason", "message") if status.get(key)}
            if answer:
                step["answer"] = answer
            if step != told[0]:
                told[0] = step
                step = {**step, "load": Path("/proc/loadavg").read_text().split()[0]}
                say(f"     {self.name}: " + " ".join(f"{key} {value}" for key, value in step.items()))

        def gone():
            tell()
            now = api.get(f"{NAMESPACE}/pods/{self.name}-0")
            if now and now["metadata"]["uid"] != uid:
                return True
            status, answer = api.call("POST", f"{NAMESPACE}/pods/{self.name}-0/eviction", body)
            if status == 404:
                return True
            said = f"{status}: {answer.get('message') if isinstance(answer, dict) else answer}"
            tell(said)
            raise ValueError(said)

        eventually(f"{self.name} is evicted", 150, gone, pause=2)
        ended = eventually(f"the migration of {self.name} has ended", 60, lambda: tell() or _ended(uid))
        return before, self.ready(), ended


def _migration(uid):
    """Its status."""
    for item in (api.get(MIGRATIONS) or {}).get("items", []):
        status = item.get("status", {})
        if uid in (item["spec"].get("sourcePodUid"), status.get("sourcePodUid")):
            return status
    return {}


def _ended(uid):
    status = _migration(uid)
    return status if status.get("phase") in ENDED else None


def ask(address, method, path, body=""):
    """From the control plane's network, which leads to all pods."""
    def work():
        connection = http.client.HTTPConnection(address, PORT, timeout=CALL * PATIENCE)
        try:
            connection.request(method, path, body)
            answer = connection.getresponse()
            text = answer.read().decode()
        finally:
            connection.close()
        if answer.status != 200:
            raise ValueError(f"{path}: {answer.status} {text}")
        return json.loads(text) if text.startswith("{") else text
    return api.inside(CONTROL_PLANE, work)


def moves(app, under_load):
    """Twice: there and back."""
    app.ready()
    sees(app, "fresh")
    for move in ("move 1", "move 2"):
        before, after, status = under_load(app, move)
        same(f"{app.name}: {move}: ended as", status["phase"], "Completed")
        check(f"{app.name}: {move}: elsewhere", before["spec"]["nodeName"] != after["spec"]["nodeName"],
              f"{before['spec']['nodeName']} to {after['spec']['nodeName']}: total {status.get('totalMs')} ms, pause {status.get('pauseMs')} ms")
        sees(app, move)


def sees(app, when):
    seen = app.look()
    for what, wanted in SEEN.items():
        same(f"{app.name}: {when}: {what}", seen[what], wanted)
    same(f"{app.name}: {when}: processes in sight", seen["processes in sight"], 1)
    same(f"{app.name}: {when}: cgroups in sight", seen["folders in sight"], [])


def counts_on(app, move):
    """Written to all the time: every acknowledged write is in its state afterwards."""
    first, stop, acknowledged, unknown = app.state(), threading.Event(), [0], [0]

    def write():
        while not stop.wait(WRITE):
            try:
                app.ask("POST", "/add", "x")
                acknowledged[0] += 1
            except (OSError, ValueError, http.client.HTTPException):
                unknown[0] += 1

    writer = threading.Thread(target=write)
    writer.start()
    try:
        moved = app.evict()
    finally:
        stop.set()
        writer.join()
    last = app.state()
    same(f"{app.name}: {move}: the same memory", last["cookie"], first["cookie"])
    counted = last["count"] - first["count"]
    check(f"{app.name}: {move}: every acknowledged write, once", acknowledged[0] <= counted <= acknowledged[0] + unknown[0],
          f"{counted} counted, {acknowledged[0]} acknowledged, {unknown[0]} not answered")
    check(f"{app.name}: {move}: it was written to", acknowledged[0] > 3, acknowledged[0])
    return moved


def applies_each_once(app, move):
    """Messages come all the time: the producer's ledger is the consumer's state afterwards."""
    def producer(method, path):
        pods = api.get(f"{NAMESPACE}/pods?labelSelector=app%3Dproducer")["items"]
        return ask(pods[0]["status"]["podIP"], method, path)

    first = app.state()
    eventually("the producer publishes", 60, lambda: producer("POST", "/resume") and producer("GET", "/ledger")["published"] > 0)
    moved = app.evict()
    producer("POST", "/pause")
    ledger = producer("GET", "/ledger")
    check(f"{app.name}: {move}: the ledger is final", ledger["paused"] and not ledger["underWay"] and not ledger["maybeTwice"], ledger)
    eventually("all messages are applied", 60, lambda: app.ask("GET", "/state")["count"] >= ledger["published"])
    last = app.state()
    same(f"{app.name}: {move}: the same memory", last["cookie"], first["cookie"])
    same(f"{app.name}: {move}: applied", last["count"], ledger["published"])
    same(f"{app.name}: {move}: lost, doubled, out of order", (last["missing"], last["duplicates"], last["outOfOrder"]), (0, 0, 0))
    same(f"{app.name}: {move}: the chain of all messages", last["chain"], ledger["chain"])
    return moved
