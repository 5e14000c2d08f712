"""Runs inside the virtual machine: looks at what SHADOW does on a stock kernel, and says each thing that it has seen."""
import importlib
import subprocess
import sys

from report import say

if __name__ == "__main__":
    say(subprocess.run(["uname", "-a"], capture_output=True, text=True).stdout.strip())
    sys.exit(importlib.import_module(sys.argv[1]).main())
