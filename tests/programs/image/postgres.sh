#!/bin/sh
# As the official image does it: makes the data folder at the first start, gives up root, becomes the server.
set -eu
bin=$(echo /usr/lib/postgresql/*/bin)
: "${PGDATA:?}"
if [ "$(id -u)" = 0 ]; then
  install -d -o postgres -g postgres -m 0700 "$PGDATA"
  exec setpriv --reuid=postgres --regid=postgres --init-groups -- "$0"
fi
mkdir -p "$PGDATA"
if [ ! -s "$PGDATA/PG_VERSION" ]; then
  "$bin/initdb" --no-sync --username=postgres --auth=trust "$PGDATA" > /dev/null
  echo 'host all all all trust' >> "$PGDATA/pg_hba.conf"
fi
exec "$bin/postgres" -D "$PGDATA" -c port=8080 -c listen_addresses='*' -c unix_socket_directories="$PGDATA"
