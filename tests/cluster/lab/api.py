"""Talking to the cluster's servers from here: HTTP, DNS and AMQP inside a network namespace.

Guarantees: every call has a time limit; "not there yet" is an ordinary answer (None or
False), so that callers can simply ask again.
"""
from __future__ import annotations

import base64
import http.client
import json
import os
import socket
import ssl
import struct
import time
from typing import Any, Callable

from . import network
from .config import API, BROKER, BROKER_IP, BROKER_PASSWORD, BROKER_USER, CONTROL_PLANE, CP_IP, DNS_IP, PATIENCE
from .pki import ADMIN, CA
from .run import Failure
from .syscalls import in_netns

# Of a write.
ATTEMPTS = 3


def inside(name: str, work: Callable[[], Any]) -> Any:
    return in_netns(str(network.handle(name)), work)


def call(method: str, path: str, body: Any = None, timeout: float = 5, kind: str = "application/json") -> tuple[int, Any]:
    """One request to the API server as administrator: status and decoded answer. Text is sent as it is."""
    sent = body if body is None or isinstance(body, str) else json.dumps(body)

    def work() -> tuple[int, Any]:
        trust = ssl.create_default_context(cafile=str(CA.certificate))
        trust.load_cert_chain(ADMIN.certificate, ADMIN.key)
        connection = http.client.HTTPSConnection(CP_IP, 6443, timeout=timeout * PATIENCE, context=trust)
        try:
            connection.request(method, path, sent, {"Content-Type": kind})
            answer = connection.getresponse()
            data = answer.read()
            plain = not (answer.headers.get_content_type() == "application/json")
            return answer.status, data.decode(errors="replace") if plain else json.loads(data)
        finally:
            connection.close()
    return inside(CONTROL_PLANE, work)


def get(path: str) -> Any:
    """The object or text at a path; None if it is not there or the server does not answer."""
    try:
        status, answer = call("GET", path)
    except (OSError, http.client.HTTPException, ValueError):
        return None
    return answer if status == 200 else None


def apply(path: str, name: str, body: dict[str, Any]) -> None:
    """Create an object, or replace the one of that name; asked again where no answer comes: a server that has just started is slow."""
    why: object = None
    for _ in range(ATTEMPTS):
        try:
            status, why = _put(path, name, body)
        except (OSError, http.client.HTTPException) as error:
            why = error
            continue
        if status in (200, 201):
            return
    raise Failure(f"{API}{path}: {why}")


def _put(path: str, name: str, body: dict[str, Any]) -> tuple[int, Any]:
    old = get(f"{path}/{name}")
    body["metadata"].pop("resourceVersion", None)
    if not old:
        return call("POST", path, body)
    body["metadata"]["resourceVersion"] = old["metadata"]["resourceVersion"]
    return call("PUT", f"{path}/{name}", body)


def ready() -> bool:
    return get("/readyz") == "ok"


def nodes() -> dict[str, dict[str, Any]]:
    answer = get("/api/v1/nodes")
    return {item["metadata"]["name"]: item for item in (answer or {}).get("items") or []}


def node_ready(node: dict[str, Any] | None) -> bool:
    conditions = (node or {}).get("status", {}).get("conditions", [])
    return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)


def resolve(name: str, where: str, limit: float = 1) -> str | None:
    """Ask the cluster's DNS for an address, from a machine's own network."""
    question = b"".join(bytes([len(part)]) + part.encode() for part in name.split(".")) + b"\0" + struct.pack(">HH", 1, 1)
    query = os.urandom(2) + struct.pack(">HHHHH", 0x0100, 1, 0, 0, 0) + question

    def work() -> bytes:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.settimeout(limit * PATIENCE)
            sock.sendto(query, (DNS_IP, 53))
            return sock.recv(4096)
    try:
        answer = inside(where, work)
    except OSError:
        return None
    found = struct.unpack(">H", answer[6:8])[0]
    return socket.inet_ntoa(answer[-4:]) if found else None


def broker_answers() -> bool:
    """The broker speaks AMQP, and its management API knows our user."""
    def work() -> bool:
        with socket.create_connection((BROKER_IP, 5672), 1 * PATIENCE) as sock:
            sock.sendall(b"AMQP\x00\x00\x09\x01")
            if sock.recv(1) != b"\x01":
                return False
        connection = http.client.HTTPConnection(BROKER_IP, 15672, timeout=2 * PATIENCE)
        word = base64.b64encode(f"{BROKER_USER}:{BROKER_PASSWORD}".encode()).decode()
        connection.request("GET", "/api/whoami", headers={"Authorization": "Basic " + word})
        return connection.getresponse().status == 200
    try:
        return inside(BROKER, work)
    except (OSError, http.client.HTTPException):
        return False


def until(what: str, holds: Callable[[], Any], limit: float, complaint: Callable[[], str], pause: float = 0.1) -> Any:
    """Ask again until the answer is yes; a failure says what was waited for and why it may not come."""
    limit *= PATIENCE
    end = time.monotonic() + limit
    while True:
        answer = holds()
        if answer:
            return answer
        if time.monotonic() > end:
            raise Failure(f"{what}: not within {limit:.0f} s\n{complaint()}")
        time.sleep(pause)
