"""What a cluster has besides its programs: names by DNS, drivers of volumes.

Guarantees: CoreDNS runs beside the control plane and not as a pod, so that draining a node
never moves or blocks it; pods reach it by the usual Service kube-dns.
"""
from __future__ import annotations

from typing import Any

from . import api
from .config import CP_IP, DNS_IP

PORTS = [{"name": "dns", "port": 53, "protocol": "UDP"}, {"name": "dns-tcp", "port": 53, "protocol": "TCP"}]


def objects() -> list[tuple[str, str, dict[str, Any]]]:
    """Where each object goes, its name, and the object."""
    system, rbac = "kube-system", "/apis/rbac.authorization.k8s.io/v1"
    reads = ["get", "list", "watch"]
    role = {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": "system:coredns"},
            "rules": [{"apiGroups": [""], "resources": ["endpoints", "services", "pods", "namespaces"], "verbs": reads},
                      {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": reads}]}
    binding = {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding",
               "metadata": {"name": "system:coredns"},
               "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "system:coredns"},
               "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "system:coredns"}]}
    service = {"apiVersion": "v1", "kind": "Service",
               "metadata": {"name": "kube-dns", "namespace": system, "labels": {"k8s-app": "kube-dns"}},
               "spec": {"clusterIP": DNS_IP, "ports": PORTS}}
    endpoints = {"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
                 "metadata": {"name": "kube-dns", "namespace": system,
                              "labels": {"kubernetes.io/service-name": "kube-dns",
                                         "endpointslice.kubernetes.io/managed-by": "shadow-cluster"}},
                 "endpoints": [{"addresses": [CP_IP], "conditions": {"ready": True}}], "ports": PORTS}
    return [
        (f"{rbac}/clusterroles", "system:coredns", role),
        (f"{rbac}/clusterrolebindings", "system:coredns", binding),
        (f"/api/v1/namespaces/{system}/services", "kube-dns", service),
        (f"/apis/discovery.k8s.io/v1/namespaces/{system}/endpointslices", "kube-dns", endpoints),
    ]


def drivers() -> list[tuple[str, str, dict[str, Any]]]:
    """Disks are attached to one node at a time, folders are there for all."""
    storage, rbac = "storage.k8s.io/v1", "rbac.authorization.k8s.io"
    made = [(f"/apis/{storage}/csidrivers", name,
             {"apiVersion": storage, "kind": "CSIDriver", "metadata": {"name": name},
              "spec": {"attachRequired": attaches, "podInfoOnMount": False}})
            for name, attaches in (("disks.csi.test", True), ("folders.csi.test", False))]
    name = "system:attacher"
    role = {"apiVersion": f"{rbac}/v1", "kind": "ClusterRole", "metadata": {"name": name}, "rules": [
        {"apiGroups": ["storage.k8s.io"], "resources": ["volumeattachments", "volumeattachments/status"],
         "verbs": ["get", "list", "watch", "update", "patch"]},
        {"apiGroups": [""], "resources": ["persistentvolumes"], "verbs": ["get"]}]}
    binding = {"apiVersion": f"{rbac}/v1", "kind": "ClusterRoleBinding", "metadata": {"name": name},
               "roleRef": {"apiGroup": rbac, "kind": "ClusterRole", "name": name},
               "subjects": [{"apiGroup": rbac, "kind": "User", "name": name}]}
    return [*made, (f"/apis/{rbac}/v1/clusterroles", name, role), (f"/apis/{rbac}/v1/clusterrolebindings", name, binding)]


def install() -> None:
    for path, name, body in [*objects(), *drivers()]:
        api.apply(path, name, body)
