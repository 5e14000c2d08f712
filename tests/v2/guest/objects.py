"""Objects as kustomize prints them, applied by the server: kubectl would ask an emulated processor for minutes.

Guarantees: each is applied or it is an error that names it.
"""
import re

from lab import api

DOCUMENTS = re.compile(r"^---$", re.MULTILINE)
TOP = re.compile(r"^(apiVersion|kind): (\S+)$", re.MULTILINE)
METADATA = re.compile(r"^metadata:\n((?: .*\n)+)", re.MULTILINE)
NAMED = re.compile(r"^  (name|namespace): (\S+)$", re.MULTILINE)
# Kustomize gives some of them the namespace that all are to be in.
CLUSTER_WIDE = ("Namespace", "CustomResourceDefinition", "RuntimeClass", "ClusterRole", "ClusterRoleBinding", "MutatingWebhookConfiguration",
                "ValidatingWebhookConfiguration", "ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding")


def apply(text):
    for document in DOCUMENTS.split(text):
        path = _path(document)
        status, answer = api.call("PATCH", f"{path}?fieldManager=v2&force=true", document.strip() + "\n", timeout=20,
                                  kind="application/apply-patch+yaml")
        if status not in (200, 201):
            raise ValueError(f"{path}: {status} {answer}")


def scale(kind, name, replicas):
    path = f"/apis/apps/v1/namespaces/demo/{kind}/{name}"
    status, answer = api.call("PATCH", path, {"spec": {"replicas": replicas}}, timeout=20, kind="application/merge-patch+json")
    if status != 200:
        raise ValueError(f"{path}: {status} {answer}")


def _path(document):
    top, named = dict(TOP.findall(document)), dict(NAMED.findall(METADATA.search(document)[1]))
    group = "/api/v1" if top["apiVersion"] == "v1" else f"/apis/{top['apiVersion']}"
    namespace = "" if top["kind"] in CLUSTER_WIDE else f"/namespaces/{named['namespace']}"
    return f"{group}{namespace}/{_plural(top['kind'].lower())}/{named['name']}"


def _plural(kind):
    if kind.endswith("y"):
        return kind[:-1] + "ies"
    return kind + ("es" if kind.endswith("s") else "s")
