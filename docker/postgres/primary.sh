#!/bin/bash
# Runs once, when the primary of compose.yaml is new.
set -eu
psql -v ON_ERROR_STOP=1 -U postgres -d app <<'SQL'
CREATE ROLE replicator LOGIN REPLICATION PASSWORD 'replicator';
CREATE ROLE app LOGIN PASSWORD 'app';
CREATE ROLE monitor LOGIN PASSWORD 'monitor';
GRANT pg_monitor TO monitor;
ALTER DATABASE app OWNER TO app;
GRANT ALL ON SCHEMA public TO app;
SQL
echo "host replication replicator all scram-sha-256" >>"$PGDATA/pg_hba.conf"
