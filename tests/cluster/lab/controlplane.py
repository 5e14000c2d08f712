"""The control plane: etcd, API server, controller manager, scheduler, kube-proxy, CoreDNS, what attaches disks.

Guarantees: the same programs and roles as a real control plane, on one machine; writes are
in an audit log (metadata only); Services work from here too, so the API server reaches
webhooks by Service and a program in this namespace reaches everything.
"""
from __future__ import annotations

from . import pki
from .config import CONTROL_PLANE, CP_IP, DOMAIN, PATIENCE, POD_NETWORK, SERVICE_NETWORK, node_name
from .machine import Machine, Service
from .node import proxy, proxy_files

ETC = "/etc/kubernetes"
READY = "https://127.0.0.1:6443/readyz"
AUDIT_LOG = "/var/log/audit.log"
QUICK = ["--kube-api-qps=100", "--kube-api-burst=200"]

AUDIT_POLICY = """apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- level: None          # heartbeats and notes, not decisions
  resources:
  - {group: coordination.k8s.io, resources: [leases]}
  - {group: events.k8s.io, resources: [events]}
  - {group: "", resources: [events]}
- level: None          # questions in the form of a create
  resources:
  - {group: authentication.k8s.io}
  - {group: authorization.k8s.io}
- level: Metadata
  verbs: [create, update, patch, delete, deletecollection]
- level: None
"""

COREFILE = f"""{DOMAIN} in-addr.arpa ip6.arpa {{
    errors
    ready 127.0.0.1:8181
    kubernetes {{
        kubeconfig {ETC}/coredns.kubeconfig
        pods insecure
        ttl 1
    }}
}}
. {{                     # there is no other world
    template ANY ANY {{
        rcode NXDOMAIN
    }}
}}
"""


def api_server() -> list[str]:
    return [
        "kube-apiserver", "--etcd-servers=http://127.0.0.1:2379", "--bind-address=0.0.0.0", "--secure-port=6443",
        f"--advertise-address={CP_IP}", f"--service-cluster-ip-range={SERVICE_NETWORK}",
        f"--tls-cert-file={ETC}/apiserver.crt", f"--tls-private-key-file={ETC}/apiserver.key",
        f"--client-ca-file={ETC}/ca.crt", "--authorization-mode=Node,RBAC", "--allow-privileged=true",
        f"--kubelet-certificate-authority={ETC}/ca.crt",
        f"--kubelet-client-certificate={ETC}/apiserver-kubelet-client.crt",
        f"--kubelet-client-key={ETC}/apiserver-kubelet-client.key", "--kubelet-preferred-address-types=InternalIP",
        f"--service-account-key-file={ETC}/sa.key", f"--service-account-signing-key-file={ETC}/sa.key",
        f"--service-account-issuer=https://kubernetes.default.svc.{DOMAIN}",
        f"--requestheader-client-ca-file={ETC}/ca.crt", "--requestheader-allowed-names=front-proxy-client",
        "--requestheader-extra-headers-prefix=X-Remote-Extra-", "--requestheader-group-headers=X-Remote-Group",
        "--requestheader-username-headers=X-Remote-User",
        f"--proxy-client-cert-file={ETC}/front-proxy.crt", f"--proxy-client-key-file={ETC}/front-proxy.key",
        f"--audit-policy-file={ETC}/audit.yaml", f"--audit-log-path={AUDIT_LOG}", "--audit-log-mode=blocking",
    ]


def controllers() -> list[str]:
    own = f"{ETC}/controller-manager.kubeconfig"
    return [
        "kube-controller-manager", f"--kubeconfig={own}", f"--authentication-kubeconfig={own}",
        f"--authorization-kubeconfig={own}", "--leader-elect=false", "--use-service-account-credentials=true",
        f"--service-account-private-key-file={ETC}/sa.key", f"--root-ca-file={ETC}/ca.crt", "--controllers=*",
        f"--cluster-signing-cert-file={ETC}/ca.crt", f"--cluster-signing-key-file={ETC}/ca.key",
        f"--cluster-cidr={POD_NETWORK}", "--allocate-node-cidrs=false",
        # Half of what it is by default, as leases are: tests wait for it.
        f"--node-monitor-grace-period={25 * PATIENCE:.0f}s", *QUICK,
    ]


def scheduler() -> list[str]:
    own = f"{ETC}/scheduler.kubeconfig"
    return ["kube-scheduler", f"--kubeconfig={own}", f"--authentication-kubeconfig={own}",
            f"--authorization-kubeconfig={own}", "--leader-elect=false", *QUICK]


def etcd() -> list[str]:
    client, peer = "http://127.0.0.1:2379", "http://127.0.0.1:2380"
    return ["etcd", "--name=cp", "--data-dir=/var/lib/etcd", f"--listen-client-urls={client}",
            f"--advertise-client-urls={client}", f"--listen-peer-urls={peer}",
            f"--initial-advertise-peer-urls={peer}", f"--initial-cluster=cp={peer}", "--unsafe-no-fsync",
            "--log-level=warn"]


def create(layers: list) -> Machine:
    machine = Machine(CONTROL_PLANE)
    files = {f"{ETC}/audit.yaml": AUDIT_POLICY, "/etc/coredns/Corefile": COREFILE,
             "/etc/resolv.conf": "nameserver 127.0.0.1\n", **proxy_files(CP_IP)}
    for who in (pki.CA, pki.API_SERVER, pki.API_TO_KUBELET, pki.FRONT_PROXY):
        files[f"{ETC}/{who.name}.crt"] = who.certificate.read_text()
        files[f"{ETC}/{who.name}.key"] = who.key.read_text()
    files[f"{ETC}/sa.key"] = pki.SERVICE_ACCOUNTS.key.read_text()
    for who in (pki.CONTROLLERS, pki.SCHEDULER, pki.DNS, pki.ATTACHER):
        files[f"{ETC}/{who.name}.kubeconfig"] = pki.kubeconfig(who)
    machine.create(layers, files, ["/var/lib/etcd"], [
        Service("etcd", etcd()),
        Service("kube-apiserver", api_server(), ["tcp:127.0.0.1:2379"]),
        Service("kube-controller-manager", controllers(), [READY]),
        Service("kube-scheduler", scheduler(), [READY]),
        proxy(node_name(1)),        # the control plane is no node: it borrows a name, with its own address
        Service("coredns", ["coredns", "-conf", "/etc/coredns/Corefile"], [READY]),
        Service("attacher", ["volumes", "attach", f"{ETC}/attacher.kubeconfig"], [READY]),
    ])
    return machine
