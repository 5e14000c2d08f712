"""The command line.

Guarantees: exit code 0 only if everything that was looked at is as it should be.
"""
from __future__ import annotations

import os
import sys
from pathlib import Path

from lab import host
from lab.run import Failure
from lab.ui import Board

from . import job, machine, system

CONSOLE = job.ROOT / "target/v2-console.log"
# An emulated processor is slow, and more so where much else runs: V2_PATIENCE says how much.
PATIENCE = 8.0
LIMIT = {"runtime": 240.0, "cluster": 225.0}
MEMORY = {"runtime": 3072, "cluster": 6144}
# Where several are emulated, QEMU 7.2 may let a kernel run into its own half-patched code: a whole cluster needs them all the same.
PROCESSORS = {"runtime": 1, "cluster": 4}

HELP = """\
SHADOW on a stock kernel with systemd and cgroup v2, in a virtual machine. Needs root.

  build        only make the system's disk
  runtime      containerd, runc, CRIU, agent and shadow-runc, without a control plane
  cluster      SHADOW installed on the cluster tool's nodes: a consumer under load and a counter, evicted twice each
"""


def main(argv: list[str]) -> int:
    try:
        if argv not in (["build"], ["runtime"], ["cluster"]):
            print(HELP, file=sys.stderr)
            return 2
        host.require_root()
        board = Board()
        made = system.provide(board)
        if argv == ["build"]:
            print(made)
            return 0
        patience = float(os.environ.get("V2_PATIENCE", PATIENCE))
        with machine.folder() as folder:
            job.make(argv[0], Path(folder), patience, board)
            return machine.work(made, Path(folder), CONSOLE, memory=MEMORY[argv[0]],
                                processors=PROCESSORS[argv[0]], limit=LIMIT[argv[0]] * patience)
    except Failure as failure:
        print(f"v2: {failure}", file=sys.stderr)
        return 1
