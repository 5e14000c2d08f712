"""Booting a machine: from a specification to a running supervisor. Runs as a program.

Guarantees: the process is in its cgroup before it does anything, and recorded before it may
go on; the machine sees its own root (an overlay), /proc, /dev, /run, host name and network,
and all that is below its first process ends with it. Exit 0 means that the machine is up.
"""
from __future__ import annotations

import json
import os
import sys
import traceback
from pathlib import Path
from typing import Any

from . import state, supervisor
from .cgroups import Cgroups
from .syscalls import (CLONE_NEWIPC, CLONE_NEWNET, CLONE_NEWNS, CLONE_NEWPID, CLONE_NEWUTS, MNT_DETACH, MS_BIND,
                       MS_NODEV, MS_NOEXEC, MS_NOSUID, MS_PRIVATE, MS_REC, MS_SHARED, die_with_parent, mount,
                       pivot_root, sethostname, setns, umount, unshare)

DEVICES = ("null", "zero", "full", "random", "urandom", "tty", "kmsg", "fuse", "net/tun", "userfaultfd", "loop-control",
           *(f"loop{number}" for number in range(16)))
LINKS = {"fd": "/proc/self/fd", "stdin": "fd/0", "stdout": "fd/1", "stderr": "fd/2", "ptmx": "pts/ptmx"}
ENVIRONMENT = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root", "LANG": "C.UTF-8"}
# Of whoever starts the cluster: Kubernetes' programs are Go's, and where a processor is emulated they look for work too eagerly.
GO_SETTINGS = ("GOMAXPROCS", "GOGC")


def main(spec_file: Path) -> int:
    die_with_parent()
    spec = json.loads(spec_file.read_text())
    Cgroups().join(spec["cgroup"])
    setns(spec["netns"], CLONE_NEWNET)
    unshare(CLONE_NEWPID | CLONE_NEWUTS | CLONE_NEWIPC)
    go_read, go_write = os.pipe()
    done_read, done_write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(go_write)
        if os.read(go_read, 1):         # nothing to read: our parent died before it recorded us
            first_process(spec, done_write)
        os._exit(1)
    state.record(Path(spec["record"]), pid)
    os.write(go_write, b"+")
    os.close(done_write)
    with os.fdopen(done_read) as answer:
        text = answer.read()
    if text != "up":
        print(text or "the machine ended while it was starting", file=sys.stderr)
        return 1
    return 0


def first_process(spec: dict[str, Any], done: int) -> None:
    try:
        os.setsid()
        unshare(CLONE_NEWNS)
        lay_out(spec)
        kept = {name: os.environ[name] for name in GO_SETTINGS if name in os.environ}
        os.environ.clear()
        os.environ.update(ENVIRONMENT | kept)
        log = os.open("/var/log/init.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        for stream, target in ((os.open("/dev/null", os.O_RDONLY), 0), (log, 1), (log, 2)):
            os.dup2(stream, target)
    except BaseException:
        os.write(done, traceback.format_exc().encode())
        os._exit(1)
    os.write(done, b"up")
    os.close(done)
    supervisor.say("booted")
    supervisor.supervise(spec["services"])
    os._exit(0)


def lay_out(spec: dict[str, Any]) -> None:
    """Build the machine's file system and make it the root."""
    mount(None, "/", None, MS_REC | MS_PRIVATE)
    disk, root = spec["disk"], spec["disk"] + "/root"
    mount("overlay", root, "overlay", 0,
          f"lowerdir={':'.join(spec['layers'])},upperdir={disk}/upper,workdir={disk}/work")
    mount("proc", f"{root}/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC)
    mount("sysfs", f"{root}/sys", "sysfs", MS_NOSUID | MS_NODEV | MS_NOEXEC)
    mount("/sys/fs/cgroup", f"{root}/sys/fs/cgroup", None, MS_BIND | MS_REC)
    if os.path.ismount(f"{root}/sys/fs/cgroup/unified"):
        umount(f"{root}/sys/fs/cgroup/unified")         # beside v1 it only confuses (crun refuses the mixture)
    make_devices(root + "/dev")
    mount("run", f"{root}/run", "tmpfs", MS_NOSUID | MS_NODEV, "mode=755")
    mount("tmp", f"{root}/tmp", "tmpfs", MS_NOSUID | MS_NODEV, "mode=1777")
    for inside, outside in spec["volumes"].items():
        os.makedirs(root + inside, exist_ok=True)
        os.makedirs(outside, exist_ok=True)
        mount(outside, root + inside, None, MS_BIND)
    os.makedirs(root + "/.old", exist_ok=True)
    pivot_root(root, root + "/.old")
    os.chdir("/")
    umount("/.old", MNT_DETACH)
    os.rmdir("/.old")
    mount(None, "/", None, MS_REC | MS_SHARED)      # so that the kubelet's mounts reach containers
    os.makedirs("/run/lock", exist_ok=True)
    sethostname(spec["hostname"])


def make_devices(dev: str) -> None:
    """The host's harmless devices, terminals and shared memory of the machine's own."""
    mount("dev", dev, "tmpfs", MS_NOSUID, "mode=755")
    for name in DEVICES:
        if os.path.exists(f"/dev/{name}"):
            os.makedirs(os.path.dirname(f"{dev}/{name}"), exist_ok=True)
            os.close(os.open(f"{dev}/{name}", os.O_CREAT | os.O_WRONLY))
            mount(f"/dev/{name}", f"{dev}/{name}", None, MS_BIND)
    for folder, kind, options in (("pts", "devpts", "newinstance,ptmxmode=0666,mode=620,gid=5"), ("shm", "tmpfs", "mode=1777"),
                                  ("mqueue", "mqueue", None)):
        os.mkdir(f"{dev}/{folder}")
        mount(folder, f"{dev}/{folder}", kind, MS_NOSUID | MS_NOEXEC, options)
    for name, target in LINKS.items():
        os.symlink(target, f"{dev}/{name}")


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
