#!/bin/sh
# RabbitMQ with all that it writes in one folder, as whoever runs it. Erlang finds its own name by loopback, which moves with it.
set -eu
: "${HOME:?}"
export RABBITMQ_NODENAME=rabbit@localhost RABBITMQ_MNESIA_BASE="$HOME/data" RABBITMQ_LOGS=- RABBITMQ_CONFIG_FILE=/programs/rabbitmq.conf
export RABBITMQ_ENABLED_PLUGINS_FILE="$HOME/plugins" RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS="+sbwt none"
exec /usr/lib/rabbitmq/bin/rabbitmq-server
