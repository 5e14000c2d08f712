"""A bad line by the kernel's own means: netem, where the kernel has it.

Guarantees: what leaves the machine is lost by chance, and what comes in is late as well; `worsen` says whether the kernel
can, and where it cannot nothing is left; only what passes the machine's network card is touched, all of it or what
concerns the other ends that are named.
"""
from __future__ import annotations

from . import network
from .config import SWITCH, netns
from .run import Failure, run

# Packets that wait; what comes on top is lost, as in any router.
LONGEST = 20_000


def worsen(name: str, delay_ms: float, loss_percent: float, ends: list[str]) -> bool:
    """`ends`: addresses and networks of the other machines that are meant; "" for all."""
    restore(name)
    loss = ["loss", f"{loss_percent}%"] if loss_percent else []
    delay = ["delay", f"{delay_ms}ms"] if delay_ms else []
    for direction, wanted in (("dst", loss), ("src", delay + loss)):
        if wanted and not all(_tried(command) for command in _commands(name, direction, wanted, ends)):
            restore(name)
            return False
    return True


def restore(name: str) -> None:
    for direction in ("dst", "src"):
        namespace, device = _device(name, direction)
        if network.exists(namespace):
            run(["tc", "-n", netns(namespace), "qdisc", "del", "dev", device, "root"], check=False, timeout=20)


def _tried(command: list[str]) -> bool:
    try:
        run(command, timeout=20)
    except Failure:                     # the kernel has no such thing
        return False
    return True


def _device(name: str, direction: str) -> tuple[str, str]:
    """What leaves goes out of the machine's card; what comes in goes out of its port on the switch."""
    return (name, "eth0") if direction == "dst" else (SWITCH, f"p-{name}")


def _commands(name: str, direction: str, wanted: list[str], ends: list[str]) -> list[list[str]]:
    namespace, device = _device(name, direction)
    tc = ["tc", "-n", netns(namespace)]
    netem = ["netem", "limit", str(LONGEST), *wanted]
    if ends == [""]:
        return [[*tc, "qdisc", "add", "dev", device, "root", "handle", "1:", *netem]]
    # Bands 1 to 3 are where packets go by themselves.
    band = [[*tc, "qdisc", "add", "dev", device, "root", "handle", "1:", "prio", "bands", "4"],
            [*tc, "qdisc", "add", "dev", device, "parent", "1:4", *netem]]
    return band + [[*tc, "filter", "add", "dev", device, "parent", "1:", "protocol", "ip", "u32",
                    "match", "ip", direction, end, "flowid", "1:4"] for end in ends]
