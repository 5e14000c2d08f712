"""The tests' counter in Python: `POST /add` links the body to a hash chain, `GET /state` shows it.

LISTEN=IP:PORT; SENDS_TO=IP:PORT makes it send each count by a connected UDP socket that it keeps.
"""
import hashlib
import json
import os
import secrets
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

cookie, guard, state = secrets.token_hex(8), threading.Lock(), {"count": 0, "chain": bytes(32)}
udp = None
if to := os.environ.get("SENDS_TO"):
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    host, _, port = to.rpartition(":")
    udp.connect((host, int(port)))


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.answer()

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        with guard:
            state["count"] += 1
            state["chain"] = hashlib.sha256(state["chain"] + body).digest()
            if udp:
                udp.send(f"{cookie} {state['count']}".encode())
        self.answer()

    def answer(self):
        with guard:
            view = {"count": state["count"], "chain": state["chain"].hex(), "cookie": cookie}
        text = json.dumps(view).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *words):
        pass


host, _, port = os.environ.get("LISTEN", "0.0.0.0:8080").rpartition(":")
ThreadingHTTPServer((host, int(port)), Handler).serve_forever()
