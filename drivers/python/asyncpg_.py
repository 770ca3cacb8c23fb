"""asyncpg: every statement is a named prepared one, kept in a cache of 100 a connection."""

import asyncio
import io

import asyncpg

from common import RUN, ZONES, check, main


async def raises(error, awaitable):
    try:
        await awaitable
    except error:
        return
    raise AssertionError("no error")


async def transactions(session, connection):
    kept = 0
    for n in range(20):
        transaction = connection.transaction()
        await transaction.start()
        await connection.execute("INSERT INTO items (session, n, value) VALUES ($1, $2, $3)", session, n, f"s{session}-{n}")
        check(await connection.fetchval("SELECT value FROM items WHERE session = $1 AND n = $2", session, n), f"s{session}-{n}")
        backend = await connection.fetchval("SELECT pg_backend_pid()")
        check(await connection.fetchval("SELECT count(*) FROM items WHERE session = $1", session), kept + 1)
        check(await connection.fetchval("SELECT pg_backend_pid()"), backend, "the server in the middle of a transaction")
        if n % 4 == 3:
            await transaction.rollback()
        else:
            await transaction.commit()
            kept += 1
    check(await connection.execute("UPDATE items SET value = value || '!' WHERE session = $1", session), f"UPDATE {kept}")
    check(await connection.execute("DELETE FROM items WHERE session = $1", session), f"DELETE {kept}")


async def prepared(session, connection):
    """More texts than the driver's cache holds: it closes some."""
    for _ in range(4):
        for n in range(70):
            check(tuple(await connection.fetchrow(f"SELECT $1::int + {n}, $2::text", session, f"s{session}")),
                  (session + n, f"s{session}"))
            check(await connection.fetchval(f"SELECT $1::int * {1000 * (session + 1) + n}", 2), 2000 * (session + 1) + 2 * n)
    # Types that the driver does not know: it asks the catalog, with JIT switched off meanwhile.
    check(await connection.fetchval("SELECT $1::mood[]", ["good", "bad"]), ["good", "bad"])
    check(await connection.fetchval("SHOW jit"), "on")
    statement = await connection.prepare("SELECT $1::int + $2::int")
    for n in range(10):
        check(await statement.fetchval(session, n), session + n)


async def pipeline(session, connection):
    """executemany: many Binds before one Sync, and all or nothing."""
    insert = "INSERT INTO items (session, n, value) VALUES ($1, $2, $3)"
    await connection.executemany(insert, [(session, n, f"s{session}") for n in range(1, 101)])
    for _ in range(3):
        await raises(asyncpg.DivisionByZeroError, connection.executemany(
            "INSERT INTO items (session, n, value) VALUES ($1, 100 / $2::int, 'lost')", [(session, n) for n in (1, 2, 0, 4)]))
        check(await connection.fetchval("SELECT count(*) FROM items WHERE session = $1", session), 100)
    check(len(await connection.fetchmany(insert + " RETURNING n", [(session, 7, "x"), (session, 8, "y")])), 2)


async def error(session, connection):
    for _ in range(5):
        transaction = connection.transaction()
        await transaction.start()
        await connection.execute("INSERT INTO items (session, n, value) VALUES ($1, 0, 'lost')", session)
        await raises(asyncpg.DivisionByZeroError, connection.fetch("SELECT 1 / $1::int", 0))
        await raises(asyncpg.InFailedSQLTransactionError, connection.fetch("SELECT 1"))
        await transaction.rollback()
        check(await connection.fetchval("SELECT count(*) FROM items WHERE session = $1", session), 0)
        async with connection.transaction():
            async def inner():
                async with connection.transaction():
                    await connection.fetch("SELECT * FROM nonsense")
            await raises(asyncpg.UndefinedTableError, inner())
            check(await connection.fetchval("SELECT $1::int", session), session)


async def cancel(session, connection):
    for _ in range(2):
        await raises(TimeoutError, connection.fetch("SELECT pg_sleep(50)", timeout=0.3))
        check(await connection.fetchval("SELECT $1::int", session), session)
    task = asyncio.ensure_future(connection.fetch("SELECT pg_sleep(50)"))
    await asyncio.sleep(0.3)
    task.cancel()
    await raises(asyncio.CancelledError, task)
    check(await connection.fetchval("SELECT $1::int", session), session)


async def copy(session, connection):
    wanted = [(session, n, f"s{session}\t{n}") for n in range(500)]
    await connection.copy_records_to_table("items", records=wanted, columns=["session", "n", "value"])
    out = io.BytesIO()
    await connection.copy_from_query(
        "SELECT session, n, value FROM items WHERE session = $1 ORDER BY n", session, output=out)
    check(out.getvalue().decode(), "".join(f"{s}\t{n}\ts{s}\\t{n}\n" for s, n, _ in wanted))
    await raises(asyncpg.DataError, connection.copy_to_table("items", source=io.BytesIO(b"no number\n"), columns=["n"]))
    check(await connection.fetchval("SELECT count(*) FROM items WHERE session = $1", session), 500)


async def notify(session, connection):
    got = asyncio.Queue()

    def listener(_connection, _pid, channel, payload):
        got.put_nowait((channel, payload))

    await connection.add_listener(f"c{session}", listener)
    for n in range(3):
        await connection.execute("SELECT pg_notify($1, $2)", f"c{session}", f"{n}")
        check(await asyncio.wait_for(got.get(), 10), (f"c{session}", f"{n}"))
    await connection.remove_listener(f"c{session}", listener)


async def advisory(session, connection):
    await connection.execute("SELECT pg_advisory_lock($1::int, $2::int)", RUN, session)
    await asyncio.sleep(0.02)
    check(await connection.fetchval("SELECT pg_advisory_unlock($1::int, $2::int)", RUN, session), True, "unlock")
    await connection.execute("SELECT pg_advisory_lock($1)", RUN)
    value = await connection.fetchval("SELECT value FROM counter")
    check(await connection.execute("UPDATE counter SET value = $1 WHERE value = $2", value + 1, value), "UPDATE 1", "under the lock")
    check(await connection.fetchval("SELECT pg_advisory_unlock($1)", RUN), True, "unlock")


async def temp(session, connection):
    await connection.execute("CREATE TEMPORARY TABLE mine (n int, value text)")
    for n in range(5):
        await connection.execute("INSERT INTO mine VALUES ($1, $2)", n, f"s{session}")
    check(tuple(await connection.fetchrow("SELECT count(*), min(value), max(value) FROM mine")), (5, f"s{session}", f"s{session}"))
    await connection.execute("DROP TABLE mine")


async def cursor(session, connection):
    for _ in range(3):
        async with connection.transaction():
            got = [r[0] async for r in connection.cursor("SELECT $1::int * 1000 + n FROM generate_series(1, 350) AS n", session)]
        check(got, [session * 1000 + n for n in range(1, 351)])


async def hold(session, connection):
    await connection.execute(
        f"DECLARE kept CURSOR WITH HOLD FOR SELECT {session} * 1000 + n FROM generate_series(1, 100) AS n")
    got = []
    while part := await connection.fetch("FETCH 30 FROM kept"):
        got += [row[0] for row in part]
    check(got, [session * 1000 + n for n in range(1, 101)])
    await connection.execute("CLOSE kept")


SHOWN = "SELECT session, current_setting('TimeZone'), current_setting('application_name'), current_setting('app.me') FROM whoami"


async def settings(session, connection):
    zone = ZONES[session % len(ZONES)]
    await connection.execute(f"SET search_path TO s{session}, public; SET TIME ZONE '{zone}'")
    await connection.execute(f"SET application_name = 'app{session}'")
    await connection.execute("SELECT set_config('app.me', $1, false)", f"s{session}")
    wanted = (session, zone, f"app{session}", f"s{session}")
    for _ in range(10):
        check(tuple(await connection.fetchrow(SHOWN)), wanted)
        transaction = connection.transaction()
        await transaction.start()
        await connection.execute("SET TIME ZONE 'Asia/Kolkata'")
        await connection.execute("SET app.me = 'nobody'")
        await transaction.rollback()
    check(tuple(await connection.fetchrow(SHOWN)), wanted)


async def reset(session, connection):
    zone = await connection.fetchval("SHOW TIME ZONE")
    for _ in range(3):
        await connection.execute("SET TIME ZONE 'Asia/Kolkata'")
        await connection.execute("SET statement_timeout = '77s'")
        check(await connection.fetchval("SHOW statement_timeout"), "77s")
        # SELECT pg_advisory_unlock_all(); CLOSE ALL; UNLISTEN *; RESET ALL;
        await connection.reset()
        check(await connection.fetchval("SHOW TIME ZONE"), zone)
        check(await connection.fetchval("SHOW statement_timeout"), "0")


async def pool(session, connection):
    """The driver's own pool, one for ten sessions' worth of tasks; it resets a connection that comes back."""
    if session % 10:
        return
    async with asyncpg.create_pool(min_size=10, max_size=10) as pool:
        async def use(number):
            for _ in range(5):
                async with pool.acquire() as c:
                    check(await c.fetchval("SHOW statement_timeout"), "0")
                    await c.execute("SET statement_timeout = '77s'")
                    check(await c.fetchval("SELECT $1::int", number), number)
                    check(await c.fetchval("SHOW statement_timeout"), "77s")

        await asyncio.gather(*(use(session + n) for n in range(20)))


async def connect():
    return await asyncpg.connect()


if __name__ == "__main__":
    main(f"asyncpg {asyncpg.__version__}", {
        f.__name__: f for f in (transactions, prepared, pipeline, error, cancel, copy, notify, advisory, temp, cursor, hold,
                                settings, reset, pool)
    }, connect)
