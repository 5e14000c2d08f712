"""Orders to the agent, as the operator gives them: JSON over mTLS."""
import http.client
import json
import ssl
import time

from node import JOB
from report import PATIENCE

NODE = "v2"
PORT = 9443


def _context():
    context = ssl.create_default_context(cafile=str(JOB / "certificates/ca.crt"))
    context.load_cert_chain(JOB / "certificates/operator.crt", JOB / "certificates/operator.key")
    context.check_hostname = False      # its certificate names the node, and we dial its address
    return context


def order(path, body, limit=30):
    """Given again where the connection breaks, as the operator does: orders may come twice."""
    until = time.monotonic() + limit * PATIENCE
    while True:
        try:
            connection = http.client.HTTPSConnection("127.0.0.1", PORT, context=_context(), timeout=limit * PATIENCE)
            connection.request("POST", f"/v1/{path}", json.dumps(body), {"content-type": "application/json"})
            answer = connection.getresponse()
            text = answer.read().decode()
            break
        except (OSError, http.client.HTTPException) as error:
            if time.monotonic() > until:
                raise AssertionError(f"{path}: {type(error).__name__}: {error}") from None
            time.sleep(0.2)
    if answer.status != 200:
        raise AssertionError(f"{path}: {answer.status} {text}")
    return json.loads(text)


class Migration:
    """One pod's, from this node to this node."""

    def __init__(self, uid, source):
        self.uid, self.source, self.epoch = uid, source.reference(), 1

    def dump(self, hold="frozen"):
        report = order(f"migrations/{self.uid}/dump", {
            "epoch": self.epoch, "container": self.source, "hold": hold, "timeoutMs": 100_000,
            "target": {"node": NODE, "address": "127.0.0.1"}})
        self.digest = report["digest"]
        return report

    def kill(self):
        order(f"migrations/{self.uid}/kill", {"epoch": self.epoch, "container": self.source})

    def thaw(self):
        order(f"migrations/{self.uid}/thaw", {"epoch": self.epoch, "container": self.source})

    def freeze(self):
        order(f"migrations/{self.uid}/freeze", {"epoch": self.epoch, "container": self.source})

    def open(self):
        order(f"migrations/{self.uid}/tickets/replacement", {
            "epoch": self.epoch, "container": "app", "digest": self.digest, "purpose": "live"})

    def started(self):
        until = time.monotonic() + 60 * PATIENCE
        while True:
            ticket = order(f"migrations/{self.uid}/tickets/replacement/await", {
                "epoch": self.epoch, "atLeast": "started", "timeoutMs": 20_000})
            if ticket["state"] == "started":
                return
            if ticket["fault"] or time.monotonic() > until:
                raise AssertionError(f"not restored: {ticket}")

    def close(self):
        order(f"migrations/{self.uid}/close", {"epoch": self.epoch})

    @property
    def ticket(self):
        return f"{self.uid}.{self.epoch}.replacement"
