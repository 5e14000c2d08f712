"""The broker: RabbitMQ 4 on a machine of its own.

Guarantees: user and virtual host exist from the first start; durable queues and messages
survive stop, kill and restart; the management API listens on 15672.
"""
from __future__ import annotations

from pathlib import Path

from . import api
from .config import BROKER, BROKER_PASSWORD, BROKER_USER
from .machine import Machine, Service

HOME = "/var/lib/rabbitmq"
CONFIG = f"""loopback_users = none
listeners.tcp.default = 5672
management.tcp.port = 15672
default_user = {BROKER_USER}
default_pass = {BROKER_PASSWORD}
default_vhost = /
default_user_tags.administrator = true
disk_free_limit.absolute = 200MB
"""
START = f"chown -R rabbitmq: {HOME} && exec setpriv --reuid=rabbitmq --regid=rabbitmq --init-groups rabbitmq-server"


def create(layers: list[Path]) -> Machine:
    machine = Machine(BROKER)
    files = {"/etc/rabbitmq/rabbitmq.conf": CONFIG, "/etc/rabbitmq/enabled_plugins": "[rabbitmq_management].\n"}
    env = {"HOME": HOME, "RABBITMQ_LOGS": "-", "RABBITMQ_NODENAME": f"rabbit@{BROKER}", "PATH":
           "/usr/lib/rabbitmq/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
    machine.create(layers, files, [HOME], [Service("rabbitmq", ["sh", "-c", START], env=env)])
    return machine


def wait(machine: Machine) -> None:
    api.until("RabbitMQ", api.broker_answers, 90, lambda: machine.complaint("rabbitmq"))
