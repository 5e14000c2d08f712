"""The cluster as a whole: up, down, status.

Guarantees: `up` ends with a cluster that has answered in every part, or says which part did
not and shows its log; it may be repeated at any time and repairs what is broken; what an
unfinished or crashed run left is removed first. `down` leaves nothing but logs.
"""
from __future__ import annotations

import shutil
from functools import partial
from pathlib import Path
from typing import Any, Callable

from . import addons, api, broker, cleanup, controlplane, host, images, limits, network, node, pki, programs, rootfs, state
from .cgroups import Cgroups
from .config import (AMQP, API, API_SERVICE_IP, BROKER, BROKER_IP, CONTROL_PLANE, DNS_IP, DOMAIN, KUBECONFIG, LOGS,
                     MAX_NODES, STATE, netns, node_ip, node_name, pod_cidr)
from .machine import Machine
from .run import Failure
from .ui import Board, together


def provide(board: Board) -> list[Path]:
    """Everything that machines are made of, from the cache or made now: layers, the topmost first."""
    host.require_root()
    host.install(board, host.RUNS)
    if not all(entry.exists() for entry in entries()):
        host.install(board, host.BUILDS)
    together([lambda: programs.build_all(board), lambda: rootfs.build(board), lambda: limits.build(board), images.pause])
    return [*(module.entry for module in programs.ALL), rootfs.entry()]


def entries() -> list[Path]:
    """All that is kept in the cache for machines."""
    return [*(module.entry for module in programs.ALL), rootfs.entry(), *limits.layers(), images.entry()]


def up(board: Board, count: int | None) -> None:
    if count is not None and not 1 <= count <= MAX_NODES:
        raise Failure(f"a cluster has 1 to {MAX_NODES} nodes")
    layers = provide(board)
    with state.lock(board):
        had = state.complete()
        if had is None:
            _sweep(board)
        wanted = [node_name(number) for number in range(1, (count or len(had or [1, 2])) + 1)]
        nodes = sorted({*(had or []), *wanted})
        fresh = [name for name in nodes if name not in (had or [])]
        _lay_out(board, layers, fresh, first=had is None)
        _start(board, nodes)
        state.set_complete(nodes)


def _sweep(board: Board) -> None:
    """Whatever an earlier run left goes, logs included: this run writes its own."""
    if left := cleanup.leftovers():
        with board.step("leftovers", f"removing {len(left)} things that an earlier cluster left"):
            cleanup.remove_everything()
    shutil.rmtree(STATE, ignore_errors=True)
    STATE.mkdir(parents=True, mode=0o755)


def _lay_out(board: Board, layers: list[Path], fresh: list[str], first: bool) -> None:
    if not fresh:
        return
    with board.step("machines", "certificates, network and disks of " + ", ".join(fresh)):
        pki.issue_all(fresh)
        network.make_switch()
        if first:
            KUBECONFIG.write_text(pki.kubeconfig(pki.ADMIN))
            KUBECONFIG.chmod(0o600)
            controlplane.create(layers)
            broker.create(layers)
        for name in fresh:
            node.create(name, [*limits.layers(), *layers])


def _start(board: Board, nodes: list[str]) -> None:
    """Boot what is off, mend what is cut or frozen, then wait until every part answers."""
    network.make_switch()
    for name in (CONTROL_PLANE, BROKER, *nodes):
        if Machine(name).pid() and not network.exists(name):
            Machine(name).kill()                # it runs, but in a network that nobody can reach
        network.attach(name)                    # one by one: each needs the switch
    jobs: list[Callable[[], None]] = [partial(_start_control_plane, board), partial(_start_broker, board)]
    together(jobs + [partial(_start_node, board, name) for name in nodes])
    with board.step("services", "names, accounts, Services") as step:
        _wait_for_services(nodes)
        step.say(f"kubernetes.default.svc.{DOMAIN} answers through {DNS_IP}")


def _boot(machine: Machine) -> None:
    if machine.pid():
        machine.thaw()
        machine.heal()
    else:
        machine.boot()


def _start_control_plane(board: Board) -> None:
    machine = Machine(CONTROL_PLANE)
    with board.step("control plane", f"etcd, API server {programs.KUBERNETES.version}") as step:
        _boot(machine)
        api.until("the API server", api.ready, 120, lambda: machine.complaint("kube-apiserver"))
        addons.install()
        step.say(f"Kubernetes {programs.KUBERNETES.version} at {API}")


def _start_broker(board: Board) -> None:
    machine = Machine(BROKER)
    with board.step("broker", "RabbitMQ") as step:
        _boot(machine)
        broker.wait(machine)
        step.say(f"RabbitMQ at {BROKER_IP}:5672")


def _start_node(board: Board, name: str) -> None:
    machine = Machine(name)
    with board.step(name, "containerd") as step:
        _boot(machine)
        node.wait_for_containerd(machine)
        step.say("kubelet")
        _wait_for_node(machine)
        step.say(f"node ready at {machine.ip}, pods in {pod_cidr(name)}")


def _wait_for_node(machine: Machine) -> None:
    api.until(f"node {machine.name} Ready", lambda: api.node_ready(api.nodes().get(machine.name)), 150,
              lambda: machine.complaint("kubelet"))


def _wait_for_services(nodes: list[str]) -> None:
    control = Machine(CONTROL_PLANE)
    api.until("the default service account", lambda: api.get("/api/v1/namespaces/default/serviceaccounts/default"), 60,
              lambda: control.complaint("kube-controller-manager"))
    name = f"kubernetes.default.svc.{DOMAIN}"
    for where in (CONTROL_PLANE, *nodes):
        api.until(f"DNS from {where}", lambda: api.resolve(name, where, 0.3) == API_SERVICE_IP, 60,
                  lambda: control.complaint("coredns") + "\n" + Machine(where).complaint("kube-proxy"))


def start_node(board: Board, name: str) -> None:
    machine = Machine(name)
    with board.step(name, "booting") as step:
        if machine.pid():
            raise Failure(f"{name} runs already")
        machine.boot()
        node.wait_for_containerd(machine)
        step.say("containerd answers; the kubelet follows")


def down(board: Board) -> None:
    host.require_root()
    with state.lock(board), board.step("down", "ending processes, removing mounts, namespaces, cgroups") as step:
        had = cleanup.leftovers()
        cleanup.remove_everything()
        step.say(f"{len(had)} things ended or removed, nothing left; logs stay in {LOGS}" if had else "nothing was there")


def status() -> dict[str, Any]:
    """The facts that other programs read; `running` only if every part answers now."""
    nodes, cut = state.complete(), network.cut_off()
    known = api.nodes() if nodes else {}
    machines = [Machine(name) for name in nodes or []]
    rows = [{"name": one.name, "ip": node_ip(one.name), "netns": netns(one.name), "pid": one.pid(),
             "podCIDR": pod_cidr(one.name), "state": one.state(cut), "ready": api.node_ready(known.get(one.name)),
             "services": one.services()} for one in machines]
    running = bool(rows) and all(row["state"] == "running" and row["ready"] for row in rows) and _core_answers(cut)
    return {
        "running": running, "kubeconfig": str(KUBECONFIG), "kubectl": str(programs.KUBERNETES.binary("kubectl")),
        "netns": netns(CONTROL_PLANE), "api": API, "cgroup": Cgroups().version, "nodes": rows,
        "broker": {"netns": netns(BROKER), "ip": BROKER_IP, "amqp": AMQP, **_core(BROKER, cut)},
        "controlPlane": {"netns": netns(CONTROL_PLANE), **_core(CONTROL_PLANE, cut)},
        "dns": DNS_IP, "logs": str(LOGS), "audit": str(LOGS / CONTROL_PLANE / "audit.log"),
    }


def _core(name: str, cut: set[str]) -> dict[str, Any]:
    machine = Machine(name)
    return {"pid": machine.pid(), "state": machine.state(cut), "services": machine.services()}


def _core_answers(cut: set[str]) -> bool:
    if any(Machine(name).state(cut) != "running" for name in (CONTROL_PLANE, BROKER)):
        return False
    return api.ready() and api.broker_answers() and api.resolve(f"kubernetes.default.svc.{DOMAIN}", CONTROL_PLANE) is not None
