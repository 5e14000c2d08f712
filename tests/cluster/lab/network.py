"""The network: one namespace for each machine, joined by a bridge in a namespace of its own.

Guarantees: nothing reaches the host's network or the world; every machine reaches every
other and all pods; a machine can be cut off (its port on the switch goes down) and healed.
Each node routes its own pods and refuses addresses of pods it does not have.
"""
from __future__ import annotations

import json
import os
from pathlib import Path

from .config import CONTROL_PLANE, CP_IP, MAX_NODES, PREFIX, SWITCH, address, netns, node_ip, node_name, pod_cidr
from .run import run
from .syscalls import in_netns

HANDLES = Path("/run/netns")
SYSCTLS = {"net/ipv4/ip_forward": "1", "net/ipv4/conf/all/rp_filter": "0", "net/ipv4/conf/default/rp_filter": "0",
           "net/ipv4/ip_local_port_range": "32768 60999"}


def handle(name: str) -> Path:
    return HANDLES / netns(name)


def exists(name: str) -> bool:
    return os.path.ismount(handle(name))


def existing() -> list[str]:
    """Machines that have a namespace now, ours by name."""
    return sorted(path.name.removeprefix(PREFIX) for path in HANDLES.glob(PREFIX + "*"))


def make_switch() -> None:
    if not exists(SWITCH):
        run(["ip", "netns", "add", netns(SWITCH)])
        _batch(SWITCH, ["link set lo up", "link add br0 type bridge stp_state 0 forward_delay 0", "link set br0 up"])


def attach(name: str) -> None:
    """Give a machine its namespace, its address and its routes."""
    if exists(name):
        return
    run(["ip", "netns", "add", netns(name)])
    _batch(SWITCH, [f"link add p-{name} type veth peer name eth0 address {_hardware_address(name)} netns {netns(name)}",
                    f"link set p-{name} master br0 up"])
    _batch(name, ["link set lo up", f"addr add {address(name)}/24 dev eth0", "link set eth0 up", *_routes(name)])
    in_netns(str(handle(name)), _tune)


def _hardware_address(name: str) -> str:
    """The same after each boot, as a machine's is: else the others send to the old one until they ask again."""
    return ":".join(["02", "00", *(f"{int(part):02x}" for part in address(name).split("."))])


def _routes(name: str) -> list[str]:
    gateway = "default dev eth0" if name == CONTROL_PLANE else f"default via {CP_IP}"
    lines = [f"route add {gateway}"]
    for other in map(node_name, range(1, MAX_NODES + 1)):
        if other == name:               # a pod that runs here has a more exact route
            lines.append(f"route add unreachable {pod_cidr(other)}")
        else:
            lines.append(f"route add {pod_cidr(other)} via {node_ip(other)}")
    return lines


def _tune() -> None:
    for key, value in SYSCTLS.items():
        Path("/proc/sys", key).write_text(value)


def _batch(name: str, lines: list[str]) -> None:
    run(["ip", "-n", netns(name), "-batch", "-"], stdin="\n".join(lines) + "\n", timeout=20)


def detach(name: str) -> None:
    if exists(SWITCH):                  # the cable first, and not only when the kernel gets to it
        run(["ip", "-n", netns(SWITCH), "link", "del", f"p-{name}"], check=False, timeout=20)
    if handle(name).exists():
        run(["ip", "netns", "del", netns(name)], check=False, timeout=20)
    if handle(name).exists():
        run(["umount", "-l", handle(name)], check=False, timeout=20)
        handle(name).unlink(missing_ok=True)


def cut(name: str) -> None:
    _batch(SWITCH, [f"link set p-{name} down"])


def heal(name: str) -> None:
    _batch(SWITCH, [f"link set p-{name} up"])


def cut_off() -> set[str]:
    """The machines whose port is down."""
    if not exists(SWITCH):
        return set()
    links = json.loads(run(["ip", "-n", netns(SWITCH), "-j", "link", "show"], timeout=10))
    return {link["ifname"][2:] for link in links if link["ifname"].startswith("p-") and "UP" not in link["flags"]}

