"""Without a control plane: pods are dumped by the agent and restored by shadow-runc, under both cgroup drivers."""
import os
import time
import traceback
import uuid

from agent import Migration, order
from node import Node
from pods import Pod
from report import check, close, eventually, same, say

MIB = 1 << 20
MEMORY = 256 * MIB
SEEN = {"cgroup namespace of its own": True, "/proc/self/cgroup": "0::/", "memory.max": str(MEMORY), "cpu.max": "150000 100000",
        "AppArmor profile": "cri-containerd.apparmor.d (enforce)"}
JVM = ["java", "-Dblocks=4", "-Xmx96m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp", "/", "Counter"]
STORM = ["sh", "-c", "for i in 1 2 3 4; do (while :; do (:); done) & done; wait"]
# Reads a file of the image, which fills its page cache, and then counts.
FULL = ["sh", "-c", "cat /fill > /dev/null; exec /counter"]
COUNTER = ("/state", "/add")


def main():
    node = Node()
    try:
        for driver, work in (("systemd", under_systemd), ("cgroupfs", under_cgroupfs)):
            say(f"--- cgroup driver: {driver}")
            node.begin(driver)
            work(node)
    except Exception:  # whatever it was: it is told, with what the node says
        check("to its end", False, traceback.format_exc())
        for unit, text in node.complaints().items():
            say(f"--- {unit}\n{text}")
    return close()


def under_systemd(node):
    moves(Pod(node, "go", ["/go-counter"], MEMORY), 2, "processors", min(2, os.cpu_count()))
    moves(Pod(node, "jvm", JVM, MEMORY), 1, "memory", MEMORY)
    moves_at_its_memory_limit(node)
    stands_still_in_a_storm(node)


def under_cgroupfs(node):
    moves(Pod(node, "counter", ["/counter"], MEMORY, paths=COUNTER), 2)
    refuses_a_user_namespace(node)


def moves(pod, times, limit=None, value=None):
    """And stays what it is."""
    began = time.monotonic()
    first = pod.make().serves()
    say(f"     {pod.name}: answers after {time.monotonic() - began:.1f} s")
    if limit:
        same(f"{pod.name}: {limit} as it sees them", first[limit], value)
    sees(pod, "fresh")
    for move in range(1, times + 1):
        for _ in range(3):
            pod.ask("POST", b"x")
        pod = moved(pod, f"move {move}")
        sees(pod, f"move {move}")
    pod.remove()


def moved(pod, which):
    state, began = pod.ask(), time.monotonic()
    migration = Migration(str(uuid.uuid4()), pod)
    report = migration.dump()
    dumped = time.monotonic()
    migration.kill()
    pod.remove()
    migration.open()
    pod = pod.successor(migration.ticket).make()
    migration.started()
    migration.close()
    say(f"     {pod.name}: {which}: {time.monotonic() - began:.1f} s: dumped after {dumped - began:.1f} s "
        f"(frozen {report['frozenMs'] / 1000:.2f}, {report['bytes'] / MIB:.0f} MiB)")
    same(f"{pod.name}: {which}: its memory", pod.serves(), state)
    return pod


def sees(pod, when):
    seen = pod.look()
    for what, wanted in SEEN.items():
        same(f"{pod.name}: {when}: {what}", seen[what], wanted)
    processes = len(pod.processes())
    same(f"{pod.name}: {when}: processes in sight", seen["processes in sight"], processes)
    same(f"{pod.name}: {when}: cgroups in sight", seen["folders in sight"], [])


def refuses_a_user_namespace(node):
    pod = Pod(node, "apart", ["/counter"], MEMORY, paths=COUNTER, user_namespace=True).make()
    pod.serves()
    same("apart: the agent sees its user namespace", order("look", pod.reference())["userNamespace"], True)
    try:
        Migration(str(uuid.uuid4()), pod).dump()
        check("apart: refused", False)
    except AssertionError as refusal:
        check("apart: refused by name", "user namespace" in str(refusal), refusal)
    pod.serves()
    pod.remove()


def stands_still_in_a_storm(node):
    """A container that forks all the time is frozen whole, and goes on; and it dies whole."""
    pod = Pod(node, "storm", STORM, MEMORY).make()
    eventually("the storm rages", 60, lambda: len(pod.processes()) > 4)
    migration, group = Migration(str(uuid.uuid4()), pod), pod.group()
    for _ in range(5):
        migration.freeze()
        before = pod.processes()
        # As long as some hundred forks take.
        time.sleep(0.3)
        same("storm: frozen whole", pod.processes(), before)
        migration.thaw()
        eventually("the storm goes on", 20, lambda before=before: pod.processes() != before)
        migration.epoch += 1
    migration.kill()
    same("storm: killed whole", (group / "cgroup.procs").read_text() if group.exists() else "", "")
    pod.remove()


def moves_at_its_memory_limit(node):
    """What CRIU takes counts as the container's, whose page cache has filled it up to its limit."""
    pod = Pod(node, "full", FULL, 64 * MIB, env={"BALLAST_MB": "24"}, paths=COUNTER).make()
    pod.serves()
    used = int(pod.outside("memory.current"))
    check("full: is at its limit", used > 60 * MIB, f"{used / MIB:.0f} MiB of 64")
    pod = moved(pod, "at its limit")
    same("full: memory.max", pod.outside("memory.max").strip(), str(64 * MIB))
    pod.remove()
