"""Runs inside the virtual machine: looks at what SHADOW does on a stock kernel, and says each thing that it has seen."""
import subprocess
import sys

import runtime
from report import say

WHAT = {"runtime": runtime.main}

if __name__ == "__main__":
    say(subprocess.run(["uname", "-a"], capture_output=True, text=True).stdout.strip())
    sys.exit(WHAT[sys.argv[1]]())
