"""The command line.

Guarantees: each command does one thing and says what it did; errors are one readable
paragraph and exit code 1; commands that enter a machine pass on the exit code they got.
"""
from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
from functools import partial
from pathlib import Path
from typing import Any, Callable

from . import broker, cache, cluster, disk, host, images, limits, network, node, packages, programs, rootfs, state, victims
from .config import BROKER, CONTROL_PLANE, KUBECONFIG, MACHINES, netns, node_number
from .machine import EXEC_LIMIT, Machine
from .run import Failure
from .ui import Board, together

HELP = """\
A real Kubernetes cluster on this machine: two nodes made of namespaces, with the real
kubelet, containerd, runc and CRIU, a control plane, and RabbitMQ. Needs root.

  up [--nodes N]                      make it, or mend it; safe to repeat
  down                                take it away; leaves only the logs
  status [--json]                     what runs; exit 0 only if all of it does
  build                               only fill the cache: programs, root file system
  prune                               empty the cache of what this version does not use

  kubectl ARGS...                     as administrator, from the control plane's network
  image OUT REF --entrypoint JSON [--env K=V]... [--packages A,B,...] [--volume REF=DIR,...] SRC=DEST...
                                      a container image from static files, on Debian packages if any are named
  load TAR...                         give images to every node
  program NAME                        where the program of that name is, built now if need be

  exec NAME [--timeout S] -- CMD...   run inside n1, n2, ..., cp or mq (60 s unless told)
  in NAME -- CMD...                   run here, but in that machine's network
  logs NAME [SERVICE]                 what a machine or one of its services wrote

  node kill|start|freeze|thaw|cut|heal NAME     also for cp and mq; heal undoes slow and fill, too
  node kill NAME PROGRAM [WORD...] [--having CHILD] [--wait S]
                                      kill -9 what is so called, on the node or in its pods
  node slow NAME [--delay MS] [--loss PERCENT] [--to NAME]
                                      packets are late or lost, all or those from and to one machine
  node fill NAME [--leave MIB]        no room on the disk of /var/lib/shadow
  volume NAME new|forget|stick|free   a disk for disks.csi.test and a folder for folders.csi.test; one that is stuck
                                      is neither attached nor detached
  broker stop|start|restart|kill|freeze|thaw|cut|heal
"""


def main(argv: list[str]) -> int:
    try:
        return COMMANDS[argv[0]](argv[1:]) or 0 if argv and argv[0] in COMMANDS else usage(argv)
    except Failure as failure:
        print(f"cluster: {failure}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("cluster: interrupted; `cluster down` removes what is there", file=sys.stderr)
        return 130


def usage(argv: list[str]) -> int:
    asked = not argv or argv[0] in ("-h", "--help", "help")
    print(HELP if asked else f"cluster: there is no command {argv[0]!r}\n\n{HELP}", file=sys.stdout if asked else sys.stderr)
    return 0 if asked else 2


def parser(command: str, **options: dict[str, Any]) -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(prog=f"cluster {command}")
    for name, how in options.items():
        made.add_argument(("--" if how.pop("option", False) else "") + name, **how)
    return made


def up(argv: list[str]) -> int:
    args = parser("up", nodes={"option": True, "type": int, "default": None, "help": "how many (2)"}).parse_args(argv)
    board = Board()
    cluster.up(board, args.nodes)
    board.line(f"  the cluster is up, after {board.seconds:.1f} s")
    show(cluster.status())
    return 0


def down(argv: list[str]) -> None:
    parser("down").parse_args(argv)
    cluster.down(Board())


def status(argv: list[str]) -> int:
    args = parser("status", json={"option": True, "action": "store_true"}).parse_args(argv)
    host.require_root()
    facts = cluster.status()
    if args.json:
        print(json.dumps(facts, indent=1))
    else:
        show(facts)
    return 0 if facts["running"] else 1


def show(facts: dict[str, Any]) -> None:
    rows = [("cp", facts["controlPlane"], facts["api"]), ("mq", facts["broker"], facts["broker"]["amqp"])]
    rows += [(row["name"], row, f"pods {row['podCIDR']}" + ("" if row["ready"] else ", not Ready")) for row in facts["nodes"]]
    print("running" if facts["running"] else "not running" if not facts["nodes"] else "running in part")
    for name, row, what in rows if facts["nodes"] else ():
        parts = [f"{service}{_again(one)}" for service, one in row["services"].items()]
        print(f"  {name:<3} {row['state']:<8} {what}\n      {', '.join(parts)}")
    if facts["nodes"]:
        print(f"  kubeconfig {facts['kubeconfig']} (reachable from network namespace {facts['netns']})\n  logs {facts['logs']}")


def _again(service: dict[str, int]) -> str:
    return (f" (started {service['starts']} times)" if service["starts"] > 1 else "") + ("" if service["pid"] else " (down)")


def build(argv: list[str]) -> None:
    parser("build").parse_args(argv)
    cluster.provide(Board())
    print(f"the cache is complete: {cache.root()}")


def prune(argv: list[str]) -> None:
    parser("prune").parse_args(argv)
    keep = [*cluster.entries(), limits.entry()]
    for spec in MACHINES.glob("*/spec.json"):       # what the present cluster stands on
        keep += map(Path, json.loads(spec.read_text())["layers"])
    for path in cache.prune(keep):
        print(f"removed {path}")


def kubectl(argv: list[str]) -> int:
    program = programs.KUBERNETES.binary("kubectl")
    return _in_network(CONTROL_PLANE, [str(program), f"--kubeconfig={KUBECONFIG}", *argv])


def _in_network(name: str, argv: list[str]) -> int:
    if not network.exists(name):
        raise Failure(f"{netns(name)} is not there: {name} is off")
    os.execvp("nsenter", ["nsenter", f"--net={network.handle(name)}", *argv])


def image(argv: list[str]) -> None:
    made = parser("image", out={"type": Path}, reference={}, files={"nargs": "+", "metavar": "SRC=DEST"},
                  entrypoint={"option": True, "type": json.loads, "required": True},
                  env={"option": True, "action": "append", "default": []},
                  volume={"option": True, "action": "append", "default": [], "metavar": "REF=DIR,DIR...",
                          "help": "the same image once more as REF, with these folders as VOLUMEs"},
                  packages={"option": True, "help": "Debian packages, with commas between"})
    args = made.parse_intermixed_args(argv)
    pairs = [file.rpartition("=") for file in args.files]
    if not all(source and target for source, _, target in pairs):
        made.error("files are given as SRC=DEST")
    again = [one.rpartition("=") for one in args.volume]
    below = [packages.layer(Board(), args.packages.split(","))] if args.packages else []
    images.make(args.out, args.reference, args.entrypoint, [(Path(source), target) for source, _, target in pairs],
                args.env, below, {other: folders.split(",") for other, _, folders in again})


def load(argv: list[str]) -> None:
    args = parser("load", archives={"nargs": "+", "type": Path, "metavar": "TAR"}).parse_args(argv)
    nodes = [Machine(name) for name in state.complete() or []]
    running = [machine for machine in nodes if machine.pid()]
    if not running:
        raise Failure("no node runs; `cluster up` first")
    together([partial(_load, machine, args.archives) for machine in running])
    print(f"{len(args.archives)} image(s) on {', '.join(machine.name for machine in running)}")


def program(argv: list[str]) -> None:
    name = parser("program", name={}).parse_args(argv).name
    module = next((module for module in programs.ALL if name in module.programs), None)
    if module is None:
        raise Failure(f"there is no program {name}; there are: {', '.join(sorted(one for m in programs.ALL for one in m.programs))}")
    if not module.binary(name).exists():
        with contextlib.redirect_stdout(sys.stderr):
            cluster.provide(Board())
    print(module.binary(name))


def volume(argv: list[str]) -> None:
    args = parser("volume", name={}, what={"choices": ["new", "forget", "stick", "free"]}).parse_args(argv)
    if args.what in ("stick", "free"):
        disk.stick(args.name, args.what == "stick")
    else:
        {"new": disk.volume, "forget": disk.forget}[args.what](args.name)


def _load(machine: Machine, archives: list[Path]) -> None:
    for archive in archives:
        node.load(machine, archive)


def split(argv: list[str], what: str) -> tuple[list[str], list[str]]:
    """The words before and after `--`."""
    if "--" not in argv or argv[-1] == "--":
        raise Failure(f"usage: cluster {what} -- CMD...")
    cut = argv.index("--")
    return argv[:cut], argv[cut + 1:]


def execute(argv: list[str]) -> int:
    before, command = split(argv, "exec NAME [--timeout S]")
    args = parser("exec", name={}, timeout={"option": True, "type": float, "default": EXEC_LIMIT}).parse_args(before)
    return named(args.name).interactive(command, args.timeout)


def enter(argv: list[str]) -> int:
    before, command = split(argv, "in NAME")
    return _in_network(named(parser("in", name={}).parse_args(before).name).name, command)


def logs(argv: list[str]) -> None:
    args = parser("logs", name={}, service={"nargs": "?", "default": "init"}).parse_args(argv)
    file = named(args.name).log / f"{args.service}.log"
    if not file.exists():
        raise Failure(f"no {file}; there are: {', '.join(sorted(one.stem for one in file.parent.glob('*.log')))}")
    sys.stdout.write(file.read_text(errors="replace"))


def named(name: str) -> Machine:
    try:
        if name not in (CONTROL_PLANE, BROKER):
            node_number(name)
    except ValueError as error:
        raise Failure(str(error)) from None
    return Machine(name)


def one_node(argv: list[str]) -> None:
    action = argv[0] if argv and argv[0] in NODE_ACTIONS else None
    if not action:
        raise Failure(f"usage: cluster node {'|'.join(NODE_ACTIONS)} NAME ...")
    NODE_ACTIONS[action](argv[1:])


def _plainly(action: str, work: Callable[[Machine], None]) -> Callable[[list[str]], None]:
    """An action that takes only the machine's name."""
    def run(argv: list[str]) -> None:
        machine = named(parser(f"node {action}", name={}).parse_args(argv).name)
        with state.lock():
            work(machine)
    return run


def _start(machine: Machine) -> None:
    if machine.name in (CONTROL_PLANE, BROKER):
        machine.boot()
    else:
        cluster.start_node(Board(), machine.name)


def _kill(argv: list[str]) -> None:
    args = parser("node kill", name={}, program={"nargs": "*", "help": "a program's name, and words among its arguments"},
                  having={"option": True, "metavar": "CHILD", "help": "only if it has started a program of this name"},
                  wait={"option": True, "type": float, "default": 0, "help": "seconds until it must be there"}).parse_args(argv)
    machine = named(args.name)
    if not args.program:
        _plainly("kill", Machine.kill)([args.name])
        return
    for described in victims.kill(machine, args.program, args.having, args.wait):
        print(f"killed on {machine.name}: {described}")


def _slow(argv: list[str]) -> None:
    args = parser("node slow", name={}, to={"option": True, "help": "only packets from and to this machine and its pods"},
                  delay={"option": True, "type": float, "default": 0, "metavar": "MS", "help": "so much longer takes a round trip"},
                  loss={"option": True, "type": float, "default": 0, "metavar": "PERCENT", "help": "each way"}).parse_args(argv)
    with state.lock():
        named(args.name).slow(args.delay, args.loss, named(args.to).name if args.to else None)


def _fill(argv: list[str]) -> None:
    args = parser("node fill", name={}, leave={"option": True, "type": float, "default": 0, "metavar": "MIB"}).parse_args(argv)
    with state.lock():
        free = named(args.name).fill(int(args.leave * (1 << 20)))
    print(f"{free >> 10} KiB are free on {args.name}")


NODE_ACTIONS = {"kill": _kill, "start": _plainly("start", _start), "freeze": _plainly("freeze", Machine.freeze),
                "thaw": _plainly("thaw", Machine.thaw), "cut": _plainly("cut", Machine.cut),
                "heal": _plainly("heal", Machine.heal), "slow": _slow, "fill": _fill}


def the_broker(argv: list[str]) -> None:
    machine = Machine(BROKER)
    actions = {"stop": [machine.stop], "start": [machine.boot, lambda: broker.wait(machine)], "kill": [machine.kill],
               "freeze": [machine.freeze], "thaw": [machine.thaw], "cut": [machine.cut], "heal": [machine.heal]}
    actions["restart"] = actions["stop"] + actions["start"]
    args = parser("broker", action={"choices": list(actions)}).parse_args(argv)
    with state.lock():
        for action in actions[args.action]:
            action()


COMMANDS = {"up": up, "down": down, "status": status, "build": build, "prune": prune, "kubectl": kubectl, "image": image,
            "load": load, "program": program, "exec": execute, "in": enter, "logs": logs, "node": one_node, "volume": volume,
            "broker": the_broker}
