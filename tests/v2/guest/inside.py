"""Where a process is among the cgroups of its node, seen from inside and from outside."""
import os
from pathlib import Path

from node import run


def group_of(pid):
    """Its cgroup, as the node sees it."""
    return Path("/sys/fs/cgroup" + _path(pid))


def look(pid):
    own, node = os.readlink(f"/proc/{pid}/ns/cgroup"), os.readlink("/proc/1/ns/cgroup")
    mine = Path(f"/proc/{pid}/root/sys/fs/cgroup")
    read = lambda name: (mine / name).read_text().strip() if (mine / name).exists() else None  # noqa: E731
    return {
        "cgroup namespace of its own": own != node,
        "/proc/self/cgroup": _in_namespace(pid),
        "memory.max": read("memory.max"),
        "cpu.max": read("cpu.max"),
        "AppArmor profile": Path(f"/proc/{pid}/attr/current").read_text().strip(),
        "processes in sight": len((read("cgroup.procs") or "").split()),
        "folders in sight": sorted(entry.name for entry in mine.iterdir() if entry.is_dir()),
    }


def _path(pid):
    return Path(f"/proc/{pid}/cgroup").read_text().strip().removeprefix("0::")


def _in_namespace(pid):
    """What a process of it reads in /proc/self/cgroup. One that enters from outside is in a cgroup of outside, so it moves in."""
    script = f'echo $$ > {group_of(pid)}/cgroup.procs && exec nsenter --target={pid} --cgroup cat /proc/self/cgroup'
    return run("sh", "-c", script).strip()
