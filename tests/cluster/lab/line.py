"""A bad line: packets of one machine are lost by chance in both directions, and those that
come in are held back for a while. By netem, or by rules and a program of our own where the kernel
has none.

Guarantees: only what passes the machine's network card is touched, all of it or what concerns
one other machine; `restore` takes everything away again; if the program
that holds the packets dies, they pass at once. The rules are in a chain of their own.
"""
from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from . import netem, network, state
from .config import BROKER, CONTROL_PLANE, HERE, MACHINES, address, pod_cidr
from .run import Failure, tail

if TYPE_CHECKING:
    from .machine import Machine

CHAIN = "SHADOW-LINE"
QUEUE = 7
REMOVE = f"""t='iptables -w 5 -t mangle'
$t -S | sed -n 's/^-A \\(.* -j {CHAIN}\\)$/\\1/p' | while read -r rule; do $t -D $rule; done
if $t -F {CHAIN} 2>/dev/null; then $t -X {CHAIN}; fi"""


def worsen(machine: Machine, delay_ms: float, loss_percent: float, to: str | None) -> None:
    """From now on, until `restore`. `to` names the only machine on the other end that is meant."""
    if not 0 <= loss_percent <= 100 or delay_ms < 0 or (not delay_ms and not loss_percent):
        raise Failure("a slow line has a --delay in milliseconds, a --loss of 1 to 100 percent, or both")
    restore(machine)
    _mark(machine.name).touch()
    if netem.worsen(machine.name, delay_ms, loss_percent, _ends(to)):
        return
    lines = [f"-N {CHAIN}"]
    if loss_percent:
        lines.append(f"-A {CHAIN} -m statistic --mode random --probability {loss_percent / 100} -j DROP")
    if delay_ms:
        _hold(machine, delay_ms)
        # On their way in only: of what leaves, TCP sends no more before the network card has it.
        lines.append(f"-A {CHAIN} -i eth0 -j NFQUEUE --queue-num {QUEUE} --queue-bypass")
    for end in _ends(to):
        lines += [f"-A POSTROUTING -o eth0 {'-d ' + end if end else ''} -j {CHAIN}",
                  f"-A PREROUTING -i eth0 {'-s ' + end if end else ''} -j {CHAIN}"]
    machine.run("sh", "-ec", "\n".join(f"iptables -w 5 -t mangle {line}" for line in lines), limit=20)


def restore(machine: Machine) -> None:
    """The line is as good as new; nothing happens if it is."""
    if not is_bad(machine.name):
        return
    netem.restore(machine.name)
    if machine.pid():
        machine.run("sh", "-ec", REMOVE, limit=20)
    end(machine.name)
    _mark(machine.name).unlink(missing_ok=True)


def end(name: str) -> None:
    """No packet is held back any more."""
    pid = state.recorded(_record(name))
    if pid:
        os.kill(pid, signal.SIGKILL)


def is_bad(name: str) -> bool:
    return _mark(name).exists()


def _hold(machine: Machine, delay_ms: float) -> None:
    log = machine.log / "line.log"
    with open(log, "a", encoding="utf-8") as errors:
        child = subprocess.Popen(
            ["nsenter", f"--net={network.handle(machine.name)}", sys.executable, "-B", "-m", "lab.hold", str(QUEUE), str(delay_ms)],
            cwd=HERE, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors, start_new_session=True)
    state.record(_record(machine.name), child.pid)
    assert child.stdout
    if child.stdout.read(1) != b"+":
        raise Failure(f"packets of {machine.name} cannot be held back; {tail(log)}")


def _ends(to: str | None) -> list[str]:
    if to is None:
        return [""]
    return [address(to)] if to in (CONTROL_PLANE, BROKER) else [address(to), pod_cidr(to)]


def _record(name: str) -> Path:
    return MACHINES / name / "line.pid"


def _mark(name: str) -> Path:
    return MACHINES / name / "line"
