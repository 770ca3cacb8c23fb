"""psycopg 3: server-side parameters, prepared at the fifth use."""

import threading

import psycopg
import psycopg_pool

import dbapi
from common import SESSIONS, cancelled, check, main, raises, threads


def pipeline(session, connection):
    with connection.pipeline():
        cursors = [connection.execute("SELECT %s::int + %s", (session, n)) for n in range(20)]
    check([c.fetchone()[0] for c in cursors], [session + n for n in range(20)])
    connection.commit()

    def broken():
        with connection.pipeline():
            connection.execute("INSERT INTO items (session, n, value) VALUES (%s, 0, 'lost')", (session,))
            connection.execute("SELECT 1 / %s", (0,))
            connection.execute("SELECT 1")

    for _ in range(3):
        raises(psycopg.errors.DivisionByZero, broken)
        connection.rollback()
        check(connection.execute("SELECT count(*) FROM items WHERE session = %s", (session,)).fetchone(), (0,))
        connection.commit()
    connection.cursor().executemany(
        "INSERT INTO items (session, n, value) VALUES (%s, %s, %s)", [(session, n, f"s{session}") for n in range(50)])
    connection.commit()
    check(connection.execute("SELECT count(*) FROM items WHERE session = %s", (session,)).fetchone(), (50,))
    connection.commit()


def cancel(session, connection):
    for _ in range(2):
        cancelled(psycopg.errors.QueryCanceled, connection.cancel_safe, connection.execute, "SELECT pg_sleep(50)")
        connection.rollback()
        check(connection.execute("SELECT %s::int", (session,)).fetchone(), (session,))
        connection.commit()


def copy(session, connection):
    wanted = [(session, n, f"s{session}\t{n}") for n in range(500)]
    cursor = connection.cursor()
    with cursor.copy("COPY items (session, n, value) FROM STDIN") as into:
        for row in wanted:
            into.write_row(row)
    connection.commit()
    with cursor.copy(f"COPY (SELECT session, n, value FROM items WHERE session = {session} ORDER BY n) TO STDOUT") as out:
        out.set_types(["int4", "int4", "text"])
        check(list(out.rows()), wanted)
    connection.commit()

    def bad():
        with cursor.copy("COPY items (session, n, value) FROM STDIN") as into:
            into.write("not a number\n")

    raises(psycopg.errors.DataError, bad)
    connection.rollback()
    check(cursor.execute("SELECT count(*) FROM items WHERE session = %s", (session,)).fetchone(), (500,))
    connection.commit()


def notify(session, connection):
    connection.autocommit = True
    connection.execute(f"LISTEN c{session}")
    for n in range(3):
        connection.execute("SELECT pg_notify(%s, %s)", (f"c{session}", f"{n}"))
        got = [(m.channel, m.payload) for m in connection.notifies(timeout=10, stop_after=1)]
        check(got, [(f"c{session}", f"{n}")], "notified")
    connection.execute("UNLISTEN *")


def cursor(session, connection):
    for _ in range(3):
        with connection.cursor("named") as cursor:
            cursor.execute("SELECT %s::int * 1000 + n FROM generate_series(1, 350) AS n", (session,))
            check(list(cursor), [(session * 1000 + n,) for n in range(1, 351)])
        connection.commit()


def hold(session, connection):
    with connection.cursor("kept", withhold=True) as cursor:
        cursor.execute("SELECT %s::int * 1000 + n FROM generate_series(1, 350) AS n", (session,))
        connection.commit()
        check(cursor.fetchall(), [(session * 1000 + n,) for n in range(1, 351)])
    connection.commit()


def alone_pool():
    """The driver's own pool: what a user of a connection leaves open is rolled back, and nothing else."""
    with psycopg_pool.ConnectionPool(min_size=SESSIONS, open=True) as pool:
        pool.wait()

        def use(number, _):
            for _ in range(5):
                with pool.connection() as connection:
                    check(connection.execute("SELECT %s::int", (number,)).fetchone(), (number,))
                    connection.execute("CREATE TEMPORARY TABLE mine (n int) ON COMMIT DROP")
                connection = pool.getconn()
                connection.execute("INSERT INTO items (session, n, value) VALUES (%s, 0, 'lost')", (number,))
                pool.putconn(connection)
            with pool.connection() as connection:
                check(connection.execute("SELECT count(*) FROM items WHERE session = %s", (number,)).fetchone(), (0,))
            pool.check()

        errors = threads(use, lambda: None, lambda _: None)
    if errors:
        raise errors[0]


scenarios = dbapi.scenarios(psycopg.Error) | {
    "pipeline": pipeline,
    "cancel": cancel,
    "copy": copy,
    "notify": notify,
    "cursor": cursor,
    "hold": hold,
    "pool": alone_pool,
}

if __name__ == "__main__":
    main(f"psycopg {psycopg.__version__}, psycopg_pool {psycopg_pool.__version__}", scenarios, lambda: psycopg.connect(""))
