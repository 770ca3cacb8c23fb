"""psycopg, with the libpq that its binary package brings: every keyword is libpq's own."""

import psycopg

from auth_common import main


def log_in(case):
    case = {name: value for name, value in case.items() if name != "sslkey_der"}
    with psycopg.connect(**case, connect_timeout=20) as connection:
        return connection.execute("SELECT current_user").fetchone()[0]


main(f"psycopg {psycopg.__version__}, libpq {psycopg.pq.version_pretty(psycopg.pq.version())}", log_in, psycopg.OperationalError)
