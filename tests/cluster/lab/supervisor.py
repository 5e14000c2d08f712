"""The first process of a machine: what systemd is on a real one.

Guarantees: each service is started when what it waits for is there, started again when it
ends (at once, then with growing pauses while it keeps dying), and logs to /var/log/NAME.log;
orphans are reaped, so container shims survive a restart of containerd; SIGTERM stops the
services and then the machine. /run/services.json says what runs.

Only modules that are loaded before the root file system changes may be used in here.
"""
from __future__ import annotations

import encodings.ascii      # noqa: F401  these three are loaded by name when first
import encodings.idna       # noqa: F401  needed, which would be too late
import encodings.latin_1    # noqa: F401
import http.client
import json
import os
import signal
import socket
import ssl
import time
import traceback
from typing import Any

from .config import PATIENCE

WATCHED = {signal.SIGCHLD, signal.SIGTERM, signal.SIGINT}
FIRST_PAUSE, LONGEST_PAUSE, SETTLED = 0.1, 5.0, 10.0
STOP_LIMIT, WAIT_LIMIT = 12.0 * PATIENCE, 120.0 * PATIENCE
STATUS = "/run/services.json"


class Service:
    """One program that should always run."""

    def __init__(self, spec: dict[str, Any]) -> None:
        self.name, self.argv = spec["name"], spec["argv"]
        self.env, self.after = spec.get("env", {}), spec.get("after", [])
        self.pid, self.starts, self.pause = 0, 0, FIRST_PAUSE
        self.since = self.due = 0.0

    def start(self) -> None:
        self.starts, self.since = self.starts + 1, time.monotonic()
        self.pid = os.fork()
        if self.pid == 0:
            try:
                self._become()
            except BaseException:
                traceback.print_exc()
            os._exit(127)

    def _become(self) -> None:
        os.setsid()
        log = os.open(f"/var/log/{self.name}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.dup2(log, 1)
        os.dup2(log, 2)
        signal.pthread_sigmask(signal.SIG_SETMASK, set())
        until = time.monotonic() + WAIT_LIMIT
        while not all(map(holds, self.after)) and time.monotonic() < until:
            time.sleep(0.1)
        os.execvpe(self.argv[0], self.argv, {**os.environ, **self.env})

    def ended(self, status: int) -> None:
        lived = time.monotonic() - self.since
        self.pause = FIRST_PAUSE if lived > SETTLED else min(self.pause * 2, LONGEST_PAUSE)
        self.due, self.pid = time.monotonic() + self.pause, 0
        code = os.waitstatus_to_exitcode(status)
        how = f"exit {code}" if code >= 0 else signal.Signals(-code).name
        say(f"{self.name} ended after {lived:.1f} s: {how}; again in {self.pause:.1f} s")


def holds(condition: str) -> bool:
    """`path:/run/x`, `tcp:host:port` or an https address that answers 200."""
    try:
        if condition.startswith("path:"):
            return os.path.exists(condition[5:])
        if condition.startswith("tcp:"):
            host, port = condition[4:].rsplit(":", 1)
            socket.create_connection((host, int(port)), 1).close()
            return True
        host, _, path = condition.removeprefix("https://").partition("/")
        trust = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        trust.check_hostname, trust.verify_mode = False, ssl.CERT_NONE
        connection = http.client.HTTPSConnection(host, timeout=2 * PATIENCE, context=trust)
        connection.request("GET", "/" + path)
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False


def say(text: str) -> None:
    print(time.strftime("%H:%M:%S"), text, flush=True)


def supervise(specs: list[dict[str, Any]]) -> None:
    """Run the services until SIGTERM; never returns otherwise."""
    signal.pthread_sigmask(signal.SIG_BLOCK, WATCHED)
    services = [Service(spec) for spec in specs]
    stopping = False
    while not stopping:
        for service in services:
            if not service.pid and time.monotonic() >= service.due:
                service.start()
                report(services)
        caught = signal.sigtimedwait(WATCHED, _until_next(services))
        stopping = caught is not None and caught.si_signo != signal.SIGCHLD
        reap(services)
    say("stopping")
    for service in reversed(services):
        if service.pid:
            os.kill(service.pid, signal.SIGTERM)
    until = time.monotonic() + STOP_LIMIT
    while any(service.pid for service in services) and time.monotonic() < until:
        signal.sigtimedwait(WATCHED, 0.2)
        reap(services)


def _until_next(services: list[Service]) -> float:
    due = [service.due for service in services if not service.pid]
    return max(0.001, min(due) - time.monotonic()) if due else 30.0


def reap(services: list[Service]) -> None:
    """Collect everything that has ended, services and orphans alike."""
    changed = False
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            break
        if pid == 0:
            break
        for service in services:
            if service.pid == pid:
                service.ended(status)
                changed = True
    if changed:
        report(services)


def report(services: list[Service]) -> None:
    state = {service.name: {"pid": service.pid, "starts": service.starts} for service in services}
    with open(STATUS + ".new", "w", encoding="utf-8") as file:
        json.dump(state, file)
    os.rename(STATUS + ".new", STATUS)
