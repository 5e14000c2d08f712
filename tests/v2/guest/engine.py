"""containerd asked for pods by its own interface (CRI), through the program `cri`: what a kubelet does, without the rest of it."""
import json
import subprocess
from pathlib import Path

JOB = Path("/run/job")


class Engine:
    """One program that is asked one thing at a time."""

    def __init__(self):
        self.program = subprocess.Popen([JOB / "bin/cri"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def ask(self, order):
        self.program.stdin.write(json.dumps(order) + "\n")
        self.program.stdin.flush()
        # Each order ends by the program's own limit; if the program has ended, this is no JSON.
        answer = json.loads(self.program.stdout.readline())
        if "error" in answer:
            raise AssertionError(answer["error"])
        return answer
