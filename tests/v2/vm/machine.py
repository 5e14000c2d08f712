"""One run of the virtual machine: boots, does its job, says how it ended.

Guarantees: the system's disk is never written to (what the machine writes goes with it); the
machine reaches nothing outside; it ends with its job, at the latest at its limit, and with us.
"""
from __future__ import annotations

import ctypes
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from lab.run import Failure, run

PR_SET_PDEATHSIG = 1
ROOM = 6 << 30      # for all that a run writes
SPARE = 2 << 30     # for what the machine writes into its job's folder
LAST_LINE = re.compile(r"^v2: exit (\w+)$")
COMMAND_LINE = ("root=/dev/vda rw console=ttyS0 quiet net.ifnames=0 mitigations=off nowatchdog "
                "systemd.unified_cgroup_hierarchy=1 cgroup_no_v1=all systemd.show_status=false")


def folder() -> tempfile.TemporaryDirectory[str]:
    """In memory, where there is a file system for that: what a machine writes must not wait for, nor hold up, a disk."""
    there = any(line.split()[1:3] == ["/dev/shm", "tmpfs"] for line in Path("/proc/mounts").read_text().splitlines())
    there = there and shutil.disk_usage("/dev/shm").free > ROOM
    return tempfile.TemporaryDirectory(prefix="shadow-v2-", dir="/dev/shm" if there else "/var/tmp")


def work(system: Path, job: Path, console: Path, *, memory: int, processors: int, limit: float) -> int:
    """Gives the folder `job`, with its program `start`, to a machine; what it prints is ours, its kernel's goes to `console`."""
    with folder() as place:
        disk = Path(place) / "job"
        size = sum(file.stat().st_size for file in job.rglob("*") if file.is_file() and not file.is_symlink())
        run(["truncate", "-s", str(size + size // 8 + SPARE), disk])
        run(["mkfs.ext4", "-q", "-F", "-O", "^has_journal", "-d", job, disk], timeout=300)
        return _watch(_start(system, disk, console, memory, processors, place), limit)


def _accelerators() -> list[str]:
    """KVM where the processor has it. A device alone is no sign of it: some hosts emulate what a processor lacks, and fail at
    an instruction of ours."""
    flags = set(re.findall(r"\b(?:vmx|svm)\b", Path("/proc/cpuinfo").read_text()))
    emulated = ["-accel", "tcg,thread=multi,tb-size=1024"]
    return ["-accel", "kvm", *emulated] if flags else emulated


def _start(system: Path, job: Path, console: Path, memory: int, processors: int, place: str) -> subprocess.Popen[str]:
    argv = [
        "qemu-system-x86_64", "-machine", "q35", *_accelerators(),
        "-cpu", "max,la57=off", "-smp", str(min(processors, os.cpu_count() or 1)), "-m", f"{memory}M", "-nodefaults", "-nographic",
        "-no-reboot", "-kernel", system / "kernel", "-initrd", system / "initrd", "-append", COMMAND_LINE,
        "-drive", f"file={system / 'disk'},format=raw,if=virtio,snapshot=on,cache=unsafe",
        "-drive", f"file={job},format=raw,if=virtio,snapshot=on,cache=unsafe",
        "-device", "virtio-rng-pci", "-serial", f"file:{console}", "-serial", "stdio",
    ]
    libc = ctypes.CDLL(None)
    return subprocess.Popen([str(word) for word in argv], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True,
                            errors="replace", env={**os.environ, "TMPDIR": place},
                            preexec_fn=lambda: libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL))


def _watch(machine: subprocess.Popen[str], limit: float) -> int:
    began, code = time.monotonic(), None
    signal.signal(signal.SIGALRM, lambda *_: machine.kill())
    signal.setitimer(signal.ITIMER_REAL, limit)
    try:
        assert machine.stdout
        for line in machine.stdout:
            line = line.rstrip()
            if last := LAST_LINE.match(line):
                code = int(last[1]) if last[1].isdigit() else 1
            elif line:
                print(f"{time.monotonic() - began:6.1f} {line}", flush=True)
        machine.wait()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        machine.kill()
        machine.wait()
    if code is None:
        raise Failure(f"the machine ended after {time.monotonic() - began:.0f} s of {limit:.0f} and did not say how its job ended")
    return code
