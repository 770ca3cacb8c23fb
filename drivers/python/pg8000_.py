"""pg8000: the protocol in Python, unnamed statements."""

import io
import os

import pg8000.dbapi

import dbapi
from common import check, main
from dbapi import rows


def connect():
    env = os.environ
    return pg8000.dbapi.connect(
        user=env["PGUSER"], password=env["PGPASSWORD"], host=env["PGHOST"], port=int(env["PGPORT"]), database=env["PGDATABASE"])


def copy(session, connection):
    cursor = connection.cursor()
    text = "".join(f"{session}\t{n}\ts{session}-{n}\n" for n in range(500))
    cursor.execute("COPY items (session, n, value) FROM STDIN", stream=io.StringIO(text))
    connection.commit()
    out = io.BytesIO()
    cursor.execute(f"COPY (SELECT session, n, value FROM items WHERE session = {session} ORDER BY n) TO STDOUT", stream=out)
    check(out.getvalue().decode(), text)
    connection.commit()


def notify(session, connection):
    connection.autocommit = True
    cursor = connection.cursor()
    cursor.execute(f"LISTEN c{session}")
    for n in range(3):
        cursor.execute(f"NOTIFY c{session}, '{n}'")
        rows(cursor, "SELECT 1")
        check([tuple(m)[1:] for m in connection.notifications], [(f"c{session}", f"{n}")], "notified")
        connection.notifications.clear()
    cursor.execute("UNLISTEN *")


scenarios = dbapi.scenarios(pg8000.dbapi.DatabaseError) | {"copy": copy, "notify": notify}

if __name__ == "__main__":
    main(f"pg8000 {pg8000.__version__}", scenarios, connect)
