"""Scenarios that every DB-API driver can run as it is."""

import time

from common import RUN, ZONES, check, raises


def rows(cursor, sql, *parameters):
    if parameters:
        cursor.execute(sql, parameters)
    else:
        cursor.execute(sql)
    return [tuple(row) for row in cursor.fetchall()]


def transactions(session, connection):
    cursor = connection.cursor()
    kept = 0
    for n in range(20):
        cursor.execute("INSERT INTO items (session, n, value) VALUES (%s, %s, %s)", (session, n, f"s{session}-{n}"))
        check(rows(cursor, "SELECT value FROM items WHERE session = %s AND n = %s", session, n), [(f"s{session}-{n}",)])
        backend = rows(cursor, "SELECT pg_backend_pid()")
        check(rows(cursor, "SELECT count(*) FROM items WHERE session = %s", session), [(kept + 1,)])
        check(rows(cursor, "SELECT pg_backend_pid()"), backend, "the server in the middle of a transaction")
        if n % 4 == 3:
            connection.rollback()
        else:
            connection.commit()
            kept += 1
    cursor.execute("UPDATE items SET value = value || '!' WHERE session = %s", (session,))
    check(cursor.rowcount, kept, "rows updated")
    cursor.execute("DELETE FROM items WHERE session = %s", (session,))
    check(cursor.rowcount, kept, "rows deleted")
    connection.commit()


def prepared(session, connection):
    """Texts that all sessions have, and texts that only one has; each often enough to be prepared."""
    cursor = connection.cursor()
    for _ in range(8):
        for n in range(20):
            check(rows(cursor, f"SELECT %s::int + {n}, %s::text", session, f"s{session}"), [(session + n, f"s{session}")])
            check(rows(cursor, f"SELECT %s::int * {1000 * (session + 1) + n} AS own", 2), [(2000 * (session + 1) + 2 * n,)])
        connection.commit()


def error(driver_error):
    def error(session, connection):
        cursor = connection.cursor()
        for _ in range(5):
            cursor.execute("INSERT INTO items (session, n, value) VALUES (%s, 0, 'lost')", (session,))
            raises(driver_error, cursor.execute, "SELECT 1 / %s", (0,))
            raises(driver_error, cursor.execute, "SELECT 1")
            connection.rollback()
            check(rows(cursor, "SELECT count(*), %s::int FROM items WHERE session = %s", session, session), [(0, session)])
            cursor.execute("SAVEPOINT a")
            raises(driver_error, cursor.execute, "SELECT * FROM nonsense")
            cursor.execute("ROLLBACK TO SAVEPOINT a")
            check(rows(cursor, "SELECT %s::int", session), [(session,)])
            connection.commit()

    return error


def advisory(session, connection):
    cursor = connection.cursor()
    # A lock of one's own, over transactions.
    rows(cursor, "SELECT pg_advisory_lock(%s, %s)", RUN, session)
    connection.commit()
    time.sleep(0.02)
    check(rows(cursor, "SELECT pg_advisory_unlock(%s, %s)", RUN, session), [(True,)], "unlock")
    connection.commit()
    # A lock that all want: nobody else changes the counter between a read and a write.
    rows(cursor, "SELECT pg_advisory_lock(%s)", RUN)
    connection.commit()
    ((value,),) = rows(cursor, "SELECT value FROM counter")
    connection.commit()
    cursor.execute("UPDATE counter SET value = %s WHERE value = %s", (value + 1, value))
    check(cursor.rowcount, 1, "rows updated under the lock")
    connection.commit()
    check(rows(cursor, "SELECT pg_advisory_unlock(%s)", RUN), [(True,)], "unlock")
    connection.commit()


def temp(session, connection):
    cursor = connection.cursor()
    # The same name in every session.
    cursor.execute("CREATE TEMPORARY TABLE mine (n int, value text)")
    connection.commit()
    for n in range(5):
        cursor.execute("INSERT INTO mine VALUES (%s, %s)", (n, f"s{session}"))
        connection.commit()
    check(rows(cursor, "SELECT count(*), min(value), max(value) FROM mine"), [(5, f"s{session}", f"s{session}")])
    connection.commit()
    cursor.execute("DROP TABLE mine")
    connection.commit()


SHOWN = "SELECT session, current_setting('TimeZone'), current_setting('application_name'), current_setting('app.me') FROM whoami"


def settings(session, connection):
    cursor = connection.cursor()
    zone = ZONES[session % len(ZONES)]
    cursor.execute(f"SET search_path TO s{session}, public")
    cursor.execute(f"SET TIME ZONE '{zone}'")
    cursor.execute(f"SET application_name = 'app{session}'")
    connection.commit()
    rows(cursor, "SELECT set_config('app.me', %s, false)", f"s{session}")
    connection.commit()
    wanted = [(session, zone, f"app{session}", f"s{session}")]
    for _ in range(10):
        check(rows(cursor, SHOWN), wanted)
        connection.commit()
        # What is rolled back or LOCAL is gone, and nothing else.
        cursor.execute("SET TIME ZONE 'Asia/Kolkata'")
        cursor.execute("SET app.me = 'nobody'")
        connection.rollback()
        cursor.execute("SET LOCAL search_path TO s199")
        check(rows(cursor, "SELECT session FROM whoami"), [(199,)])
        connection.commit()
    check(rows(cursor, SHOWN), wanted)
    connection.commit()


def hold(session, connection):
    """A cursor that outlives its transaction."""
    cursor = connection.cursor()
    cursor.execute(f"DECLARE kept CURSOR WITH HOLD FOR SELECT {session} * 1000 + n FROM generate_series(1, 100) AS n")
    connection.commit()
    got = []
    while part := rows(cursor, "FETCH 30 FROM kept"):
        got += part
        connection.commit()
    check(got, [(session * 1000 + n,) for n in range(1, 101)])
    cursor.execute("CLOSE kept")
    connection.commit()


def reset(session, connection):
    """Back to the beginning, by hand."""
    cursor = connection.cursor()
    ((zone,),) = rows(cursor, "SHOW TIME ZONE")
    for n in range(3):
        cursor.execute("SET TIME ZONE 'Asia/Kolkata'")
        cursor.execute("SET statement_timeout = '77s'")
        connection.commit()
        check(rows(cursor, "SHOW statement_timeout"), [("77s",)])
        for _ in range(7):
            check(rows(cursor, "SELECT %s::int + 7", session), [(session + 7,)])
        connection.commit()
        # DISCARD ALL runs in no transaction.
        connection.autocommit = True
        cursor.execute("DISCARD ALL")
        connection.autocommit = False
        check(rows(cursor, "SHOW TIME ZONE"), [(zone,)])
        check(rows(cursor, "SHOW statement_timeout"), [("0",)])
        connection.commit()


def scenarios(driver_error):
    return {
        "transactions": transactions,
        "prepared": prepared,
        "error": error(driver_error),
        "settings": settings,
        "reset": reset,
        "advisory": advisory,
        "temp": temp,
        "hold": hold,
    }
