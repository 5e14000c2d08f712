"""Without a control plane: pods are dumped by the agent and restored by shadow-runc, twice each, under both cgroup drivers."""
import traceback
import uuid

from agent import Migration
from node import Node, run
from pods import Pod, seconds
from report import check, close, eventually, same, say

IMAGE = "localhost/v2:1"
MIB = 1 << 20
LIMIT = {"memory": "256Mi", "cpu": "1500m"}
SEEN = {"cgroup namespace of its own": True, "/proc/self/cgroup": "0::/", "memory.max": str(256 * MIB), "cpu.max": "150000 100000"}
STORM = "for i in 1 2 3 4; do (while :; do (:); done) & done; wait"


def main():
    node = Node()
    try:
        for driver in ("systemd", "cgroupfs"):
            say(f"--- cgroup driver: {driver}")
            node.begin(driver)
            if driver == "systemd":
                moves(Pod("go", IMAGE, ["/go-counter"], LIMIT), "processors", 2)
                moves(Pod("jvm", IMAGE, ["java", "-Xmx96m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "/Counter.java"], LIMIT),
                      "memory", 256 * MIB)
                stands_still_in_a_storm()
                moves_at_its_memory_limit()
            moves(Pod("counter", IMAGE, ["/counter"], LIMIT, paths=("/state", "/add")))
    except Exception:  # whatever it was: it is told, with what the node says
        check("to its end", False, traceback.format_exc())
        for unit, text in node.complaints().items():
            say(f"--- {unit}\n{text}")
    return close()


def moves(pod, limit=None, value=None):
    """Twice, and stays what it is."""
    pod.make()
    first = pod.serves()
    if limit:
        same(f"{pod.name}: {limit} as it sees them", first[limit], value)
    sees(pod, "fresh")
    for move in (1, 2):
        for _ in range(3):
            pod.ask("POST", b"x")
        pod = moved(pod, f"move {move}")
        sees(pod, f"move {move}")


def moved(pod, which):
    state, began = pod.ask(), seconds()
    migration = Migration(str(uuid.uuid4()), pod)
    report = migration.dump()
    migration.kill()
    pod.remove()
    pod = pod.successor(migration.ticket)
    pod.make()
    migration.open()
    migration.started()
    migration.close()
    say(f"     {pod.name}: {which}: {seconds() - began:.1f} s, frozen {report['frozenMs'] / 1000:.2f} s, {report['bytes'] / MIB:.0f} MiB")
    same(f"{pod.name}: {which}: its memory", pod.serves(), state)
    return pod


def sees(pod, when):
    seen = pod.look()
    for what, wanted in SEEN.items():
        same(f"{pod.name}: {when}: {what}", seen[what], wanted)
    processes = len(pod.processes())
    same(f"{pod.name}: {when}: processes in sight", seen["processes in sight"], processes)
    same(f"{pod.name}: {when}: cgroups in sight", seen["folders in sight"], [])


def stands_still_in_a_storm():
    """A container that forks all the time is frozen whole, and goes on; and it dies whole."""
    pod = Pod("storm", IMAGE, ["sh", "-c", STORM], LIMIT)
    pod.make()
    eventually("the storm rages", 60, lambda: len(pod.processes()) > 4)
    migration = Migration(str(uuid.uuid4()), pod)
    for _ in range(5):
        migration.freeze()
        before = pod.processes()
        run("sleep", "0.3")
        same("storm: frozen whole", pod.processes(), before)
        migration.thaw()
        eventually("the storm goes on", 20, lambda: pod.processes() != before)
        migration.epoch += 1
    group = pod.group()
    migration.kill()
    eventually("the storm is over", 20, lambda: not pod.processes(group))
    pod.remove()
    check("storm: killed whole", True)


def moves_at_its_memory_limit():
    """What CRIU takes counts as the container's, whose page cache has filled it up to its limit."""
    pod = Pod("full", IMAGE, ["sh", "-c", "dd if=/dev/zero of=/fill bs=1M count=200 2>/dev/null; exec /counter"],
              {"memory": "128Mi", "cpu": "1500m"}, env={"BALLAST_MB": "64"}, paths=("/state", "/add"))
    pod.make()
    pod.serves()
    used = int(pod.outside("memory.current"))
    check("full: is at its limit", used > 120 * MIB, f"{used / MIB:.0f} MiB of 128")
    pod = moved(pod, "at its limit")
    same("full: memory.max", pod.outside("memory.max").strip(), str(128 * MIB))
