"""Certificates: one authority, one certificate for each role.

Guarantees: an identity is issued once and then kept for the life of the cluster; every
kubeconfig carries its certificates inside, so that the file alone is enough anywhere.
"""
from __future__ import annotations

import base64
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from .config import API, API_SERVICE_IP, CP_IP, DOMAIN, PKI, node_ip
from .run import run
from .ui import together

DAYS = "730"
API_NAMES = ["kubernetes", "kubernetes.default", "kubernetes.default.svc", f"kubernetes.default.svc.{DOMAIN}", "localhost"]


@dataclass(frozen=True)
class Identity:
    """Who a certificate is for."""

    name: str
    subject: str
    names: tuple[str, ...] = ()

    @property
    def certificate(self) -> Path:
        return PKI / f"{self.name}.crt"

    @property
    def key(self) -> Path:
        return PKI / f"{self.name}.key"


CA = Identity("ca", "/CN=shadow-cluster-ca")
SERVICE_ACCOUNTS = Identity("sa", "")
API_SERVER = Identity("apiserver", "/CN=kube-apiserver", (
    *(f"DNS:{name}" for name in API_NAMES), f"IP:{API_SERVICE_IP}", f"IP:{CP_IP}", "IP:127.0.0.1"))
ADMIN = Identity("admin", "/O=system:masters/CN=admin")
API_TO_KUBELET = Identity("apiserver-kubelet-client", "/O=system:masters/CN=kube-apiserver-kubelet-client")
FRONT_PROXY = Identity("front-proxy", "/CN=front-proxy-client")
CONTROLLERS = Identity("controller-manager", "/CN=system:kube-controller-manager")
SCHEDULER = Identity("scheduler", "/CN=system:kube-scheduler")
PROXY = Identity("kube-proxy", "/CN=system:kube-proxy")
DNS = Identity("coredns", "/CN=system:coredns")
ATTACHER = Identity("attacher", "/CN=system:attacher")
ROLES = (API_SERVER, ADMIN, API_TO_KUBELET, FRONT_PROXY, CONTROLLERS, SCHEDULER, PROXY, DNS, ATTACHER)


def kubelet(node: str) -> Identity:
    return Identity(f"kubelet-{node}", f"/O=system:nodes/CN=system:node:{node}", (f"DNS:{node}", f"IP:{node_ip(node)}"))


def issue_all(nodes: list[str]) -> None:
    """Everything that is not there yet."""
    PKI.mkdir(parents=True, exist_ok=True, mode=0o700)
    if not CA.certificate.exists():
        _request(CA, ["-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=critical,keyCertSign,cRLSign"])
    if not SERVICE_ACCOUNTS.key.exists():
        run(["openssl", "genrsa", "-out", SERVICE_ACCOUNTS.key, "2048"])
    wanted = [who for who in (*ROLES, *map(kubelet, nodes)) if not who.certificate.exists()]
    together([partial(_issue, who) for who in wanted])


def _issue(who: Identity) -> None:
    extra: list[str | Path] = ["-CA", CA.certificate, "-CAkey", CA.key,
             "-addext", "basicConstraints=critical,CA:FALSE",
             "-addext", "keyUsage=critical,digitalSignature",
             "-addext", "extendedKeyUsage=serverAuth,clientAuth"]
    if who.names:
        extra += ["-addext", "subjectAltName=" + ",".join(who.names)]
    _request(who, extra)


def _request(who: Identity, extra: list[str | Path]) -> None:
    run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
         "-config", "/dev/null", "-subj", who.subject, "-days", DAYS, "-keyout", who.key, "-out", who.certificate, *extra])


def kubeconfig(who: Identity) -> str:
    data = {part: base64.b64encode(path.read_bytes()).decode()
            for part, path in (("ca", CA.certificate), ("crt", who.certificate), ("key", who.key))}
    return f"""apiVersion: v1
kind: Config
clusters:
- name: shadow
  cluster:
    server: {API}
    certificate-authority-data: {data['ca']}
users:
- name: {who.name}
  user:
    client-certificate-data: {data['crt']}
    client-key-data: {data['key']}
contexts:
- name: shadow
  context: {{cluster: shadow, user: {who.name}}}
current-context: shadow
"""
