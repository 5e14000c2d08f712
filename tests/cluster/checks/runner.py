"""Registering checks and running them.

Guarantees: a check that fails says why and does not stop the others; before each check that
needs a cluster, `up` mends what the one before may have broken.
"""
from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
import traceback
from typing import Any, Callable

from lab.api import until
from lab.config import HERE
from lab.run import Failure

import checks

Check = Callable[[], None]
CHECKS: list[tuple[str, Check]] = []


def check(kind: str) -> Callable[[Check], Check]:
    """Register a check: `alone` needs no cluster, `live` a running one, `down` takes it down."""
    def register(body: Check) -> Check:
        CHECKS.append((kind, body))
        return body
    return register


def cluster(*argv: str, expect: int | None = 0, limit: float = 120) -> str:
    """The tool, as a user calls it: its standard output."""
    done = subprocess.run([str(HERE / "cluster"), *argv], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, text=True, timeout=limit, check=False)
    if expect is not None and done.returncode != expect:
        raise AssertionError(f"cluster {' '.join(argv)}: exit {done.returncode}, not {expect}\n{done.stdout}{done.stderr}")
    return done.stdout


def facts() -> dict[str, Any]:
    return json.loads(cluster("status", "--json", expect=None))


def node(name: str) -> dict[str, Any]:
    return next(one for one in facts()["nodes"] if one["name"] == name)


def wait(what: str, holds: Callable[[], Any], limit: float = 30) -> Any:
    return until(what, holds, limit, lambda: json.dumps(facts(), indent=1)[-800:])


def main(argv: list[str]) -> int:
    options = argparse.ArgumentParser(prog="selftest", description=checks.__doc__,
                                      formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--keep", action="store_true", help="leave out what takes the cluster down")
    options.add_argument("names", nargs="*", help="only checks whose name contains one of these")
    args = options.parse_args(argv)
    passed, failed = 0, 0
    for kind, body in CHECKS:
        if (args.keep and kind == "down") or (args.names and not any(name in body.__name__ for name in args.names)):
            continue
        began = time.monotonic()
        try:
            if kind != "alone":
                cluster("up", limit=3600)
            body()
            passed, mark = passed + 1, "ok  "
        except (AssertionError, Failure, OSError, ValueError, KeyError, subprocess.SubprocessError):
            failed, mark = failed + 1, "FAIL"
            traceback.print_exc(file=sys.stdout)
        print(f"{mark} {body.__name__.replace('_', ' ')} ({time.monotonic() - began:.1f} s)", flush=True)
    print(f"{passed} passed, {failed} failed")
    return 1 if failed or not passed else 0
