"""The facts of the cluster: names, addresses, folders.

Guarantees: nothing in here acts. Every address and path that two files must agree on is
written once, in this file.
"""
from __future__ import annotations

import os
import platform
from pathlib import Path

HERE = Path(__file__).resolve().parent.parent
PROGRAMS = HERE / "programs"

STATE = Path("/var/lib/shadow-cluster")
LOCK = Path("/run/lock/shadow-cluster.lock")
LOGS = STATE / "log"
PKI = STATE / "pki"
MACHINES = STATE / "machines"
VOLUMES = STATE / "volumes"     # disks and folders that pods claim; all machines see them
COMPLETE = STATE / "cluster.json"
KUBECONFIG = STATE / "admin.kubeconfig"

PREFIX = "shadow-"          # of every network namespace and cgroup that is ours
SWITCH = "sw"               # the namespace that holds the bridge, and nothing else
CONTROL_PLANE = "cp"
BROKER = "mq"
MAX_NODES = 9

# All waits are for a real processor, and multiplied by this: an emulated one needs more.
PATIENCE = float(os.environ.get("SHADOW_CLUSTER_PATIENCE", "1"))

# Of whoever has unpacked images before, for the same reason: the folder that a node's containerd begins with.
UNPACKED_IMAGES = os.environ.get("SHADOW_CLUSTER_CONTAINERD")

CP_IP = "10.200.0.10"
BROKER_IP = "10.200.0.20"
POD_NETWORK = "10.201.0.0/16"
SERVICE_NETWORK = "10.96.0.0/16"
API_SERVICE_IP = "10.96.0.1"
DNS_IP = "10.96.0.10"
DOMAIN = "cluster.local"
API = f"https://{CP_IP}:6443"

BROKER_USER = "shadow"
BROKER_PASSWORD = "shadow"
AMQP = f"amqp://{BROKER_USER}:{BROKER_PASSWORD}@{BROKER_IP}:5672/%2f"

VOLUMES_INSIDE = "/srv/volumes"
NODE_DISK = "/var/lib/shadow"       # a node's folder with a disk of its own, which can be filled up

PAUSE_IMAGE = "localhost/pause:1"
GOARCH = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())


def node_name(number: int) -> str:
    return f"n{number}"


def node_number(name: str) -> int:
    """The number in a node's name; ValueError if it is not one."""
    if not (name.startswith("n") and name[1:].isdigit() and 1 <= int(name[1:]) <= MAX_NODES):
        raise ValueError(f"{name!r} is not a node: n1 to n{MAX_NODES}")
    return int(name[1:])


def node_ip(name: str) -> str:
    return f"10.200.0.{10 + node_number(name)}"


def pod_cidr(name: str) -> str:
    return f"10.201.{node_number(name)}.0/24"


def address(name: str) -> str:
    """The address of any machine of the cluster."""
    return {CONTROL_PLANE: CP_IP, BROKER: BROKER_IP}.get(name) or node_ip(name)


def netns(name: str) -> str:
    return PREFIX + name
