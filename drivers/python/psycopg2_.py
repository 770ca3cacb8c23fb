"""psycopg2: parameters go into the text; simple queries only."""

import io
import select

import psycopg2
import psycopg2.extensions

import dbapi
from common import cancelled, check, main, raises
from dbapi import rows


def cancel(session, connection):
    cursor = connection.cursor()
    for _ in range(2):
        cancelled(psycopg2.errors.QueryCanceled, connection.cancel, cursor.execute, "SELECT pg_sleep(50)")
        connection.rollback()
        check(rows(cursor, "SELECT %s", session), [(session,)])
        connection.commit()


def copy(session, connection):
    cursor = connection.cursor()
    text = "".join(f"{session}\t{n}\ts{session}-{n}\n" for n in range(500))
    cursor.copy_expert("COPY items (session, n, value) FROM STDIN", io.StringIO(text))
    connection.commit()
    out = io.StringIO()
    cursor.copy_expert(f"COPY (SELECT session, n, value FROM items WHERE session = {session} ORDER BY n) TO STDOUT", out)
    check(out.getvalue(), text)
    connection.commit()
    raises(psycopg2.Error, cursor.copy_expert, "COPY items (session, n, value) FROM STDIN", io.StringIO("not a number\n"))
    connection.rollback()
    check(rows(cursor, "SELECT count(*) FROM items WHERE session = %s", session), [(500,)])
    connection.commit()


def notify(session, connection):
    connection.autocommit = True
    cursor = connection.cursor()
    cursor.execute(f"LISTEN c{session}")
    for n in range(3):
        cursor.execute("SELECT pg_notify(%s, %s)", (f"c{session}", f"{n}"))
        if not connection.notifies:
            check(bool(select.select([connection], [], [], 10)[0]), True, "notified")
            connection.poll()
        got = connection.notifies.pop(0)
        check((got.channel, got.payload), (f"c{session}", f"{n}"))
    cursor.execute("UNLISTEN *")


def cursor(session, connection):
    for _ in range(3):
        with connection.cursor("named") as cursor:
            cursor.itersize = 100
            cursor.execute("SELECT %s * 1000 + n FROM generate_series(1, 350) AS n", (session,))
            check(list(cursor), [(session * 1000 + n,) for n in range(1, 351)])
        connection.commit()


def hold(session, connection):
    with connection.cursor("kept", withhold=True) as cursor:
        cursor.execute("SELECT %s * 1000 + n FROM generate_series(1, 350) AS n", (session,))
        connection.commit()
        check(cursor.fetchall(), [(session * 1000 + n,) for n in range(1, 351)])
    connection.commit()


def reset(session, connection):
    dbapi.reset(session, connection)
    cursor = connection.cursor()
    cursor.execute("SET statement_timeout = '77s'")
    connection.commit()
    # ABORT; RESET ALL; SET SESSION AUTHORIZATION DEFAULT
    connection.reset()
    check(rows(cursor, "SHOW statement_timeout"), [("0",)])
    connection.commit()


scenarios = dbapi.scenarios(psycopg2.Error) | {
    "cancel": cancel,
    "copy": copy,
    "notify": notify,
    "cursor": cursor,
    "hold": hold,
    "reset": reset,
}

if __name__ == "__main__":
    main(f"psycopg2 {psycopg2.__version__.split()[0]}", scenarios, lambda: psycopg2.connect(""))
