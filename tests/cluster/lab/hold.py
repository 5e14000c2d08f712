"""Holds packets back: those that the kernel puts into a queue go on after a delay, in their order.

Guarantees: no packet is looked into, changed or lost in here; "+" on standard output says that
it works; it ends with its machine or when it is killed, and packets then pass at once. Runs as
a program, in the machine's network: `hold QUEUE MILLISECONDS`.
"""
from __future__ import annotations

import os
import select
import socket
import struct
import sys
import time
from collections import deque

NETLINK_NETFILTER, SUBSYSTEM = 12, 3
PACKET, VERDICT_BATCH, CONFIG = 0, 3, 2
REQUEST, ACKNOWLEDGE, ERROR = 1, 4, 2
BIND, META, LARGE_PACKETS, ACCEPT = 1, 1, 4, 1
LONGEST = 20_000        # packets that wait; what comes on top is lost, as in any router


def attribute(kind: int, data: bytes) -> bytes:
    return struct.pack("=HH", len(data) + 4, kind) + data + bytes(-len(data) % 4)


def message(queue: int, kind: int, attributes: bytes, flags: int = REQUEST) -> bytes:
    body = struct.pack("=BB", 0, 0) + struct.pack(">H", queue) + attributes
    return struct.pack("=LHHLL", 16 + len(body), SUBSYSTEM << 8 | kind, flags, 0, 0) + body


def messages(data: bytes) -> list[tuple[int, bytes]]:
    """Kind and body of each message in a datagram."""
    found = []
    while len(data) >= 16:
        length, kind = struct.unpack_from("=LH", data)
        found.append((kind, data[16:length]))
        data = data[length + 3 & ~3:]
    return found


def packet_id(body: bytes) -> int | None:
    """The number of a queued packet: attribute 1 after the general header."""
    at = 4
    while at + 4 <= len(body):
        length, kind = struct.unpack_from("=HH", body, at)
        if kind & 0x3FFF == 1:
            return struct.unpack_from(">L", body, at + 4)[0]
        at += max(4, length + 3 & ~3)
    return None


def connect(queue: int) -> socket.socket:
    link = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER)
    link.setsockopt(socket.SOL_SOCKET, 33, 8 << 20)         # SO_RCVBUFFORCE
    link.bind((0, 0))
    flags = struct.pack(">L", LARGE_PACKETS)
    for attributes in (attribute(1, struct.pack(">BBH", BIND, 0, 0)),
                       attribute(2, struct.pack(">LB", 0, META)) + attribute(3, struct.pack(">L", LONGEST))
                       + attribute(4, flags) + attribute(5, flags)):
        link.send(message(queue, CONFIG, attributes, REQUEST | ACKNOWLEDGE))
        for kind, body in messages(link.recv(65536)):
            if kind == ERROR and (code := struct.unpack_from("=i", body)[0]):
                raise OSError(-code, f"queue {queue}: {os.strerror(-code)}")
    link.setsockopt(270, 5, 1)                              # SOL_NETLINK, NETLINK_NO_ENOBUFS
    link.setblocking(False)
    return link


def hold(link: socket.socket, queue: int, delay: float) -> None:
    waiting: deque[tuple[float, int]] = deque()
    while True:
        pause = max(0.0, waiting[0][0] - time.monotonic()) if waiting else None
        if select.select([link], [], [], pause)[0]:
            due = time.monotonic() + delay
            try:
                for _ in range(256):
                    for kind, body in messages(link.recv(65536)):
                        number = packet_id(body) if kind == SUBSYSTEM << 8 | PACKET else None
                        if number is not None:
                            waiting.append((due, number))
            except BlockingIOError:
                pass
        last, now = None, time.monotonic()
        while waiting and waiting[0][0] <= now:
            last = waiting.popleft()[1]
        if last is not None:                                # it and all before it
            link.send(message(queue, VERDICT_BATCH, attribute(2, struct.pack(">LL", ACCEPT, last))))


def main(queue: int, milliseconds: float) -> None:
    link = connect(queue)
    os.write(1, b"+")
    os.close(1)
    hold(link, queue, milliseconds / 1000)


if __name__ == "__main__":
    main(int(sys.argv[1]), float(sys.argv[2]))
