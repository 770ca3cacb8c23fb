#!/bin/bash
# A replica of compose.yaml: copied from the primary when it is new, then a standby.
set -eu
data=${PGDATA:-/var/lib/postgresql/data}
if [ ! -s "$data/PG_VERSION" ]; then
    until pg_basebackup -h primary -U replicator -D "$data" -R -X stream; do
        sleep 1
        find "$data" -mindepth 1 -delete
    done
    chmod 0700 "$data"
fi
exec postgres -D "$data"
