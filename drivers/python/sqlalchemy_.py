"""SQLAlchemy Core and ORM on three drivers (DIALECT), with its own pool."""

import os

import sqlalchemy
from sqlalchemy import URL, create_engine, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from common import RUN, ZONES, check, main, threads

DIALECT = os.environ["DIALECT"]


def url():
    env = os.environ
    return URL.create(f"postgresql+{DIALECT}", env["PGUSER"], env["PGPASSWORD"], env["PGHOST"], int(env["PGPORT"]), env["PGDATABASE"])


class Base(DeclarativeBase):
    pass


class Item(Base):
    __tablename__ = "items"
    id: Mapped[int] = mapped_column(primary_key=True)
    session: Mapped[int]
    n: Mapped[int]
    value: Mapped[str]


# Written once, for connections of both kinds: an asynchronous one runs it with run_sync.


def transactions(number, connection):
    with Session(connection) as session:
        for n in range(10):
            session.add_all([Item(session=number, n=n, value=f"s{number}"), Item(session=number, n=n, value=f"s{number}")])
            session.flush()
            mine = session.query(Item).filter_by(session=number, n=n).all()
            check({(i.n, i.value) for i in mine}, {(n, f"s{number}")})
            if n % 4 == 3:
                session.rollback()
            else:
                session.commit()
        check(session.query(Item).filter_by(session=number).count(), 16)
        # Many rows in an INSERT, as the ORM does it.
        session.add_all([Item(session=number, n=n, value=f"s{number}") for n in range(100)])
        session.commit()
        check(session.query(Item).filter_by(session=number).delete(), 116)
        session.commit()


def prepared(number, connection):
    for _ in range(8):
        for n in range(20):
            check(tuple(connection.execute(text(f"SELECT CAST(:a AS int) + {n}, CAST(:b AS text)"), {"a": number, "b": f"s{number}"}).one()),
                  (number + n, f"s{number}"))
            own = 1000 * (number + 1) + n
            check(connection.execute(text(f"SELECT CAST(:a AS int) * {own}"), {"a": 2}).scalar(), 2 * own)
        connection.commit()


def error(number, connection):
    insert = text("INSERT INTO items (session, n, value) VALUES (:s, 0, 'lost')")
    for _ in range(5):
        connection.execute(insert, {"s": number})
        try:
            connection.execute(text("SELECT 1 / CAST(:z AS int)"), {"z": 0})
            raise AssertionError("no error")
        except DBAPIError:
            connection.rollback()
        check(connection.execute(text("SELECT count(*) FROM items WHERE session = :s"), {"s": number}).scalar(), 0)
        try:
            with connection.begin_nested():
                connection.execute(text("SELECT * FROM nonsense"))
            raise AssertionError("no error")
        except DBAPIError:
            pass
        check(connection.execute(text("SELECT CAST(:s AS int)"), {"s": number}).scalar(), number)
        connection.commit()


def advisory(number, connection):
    connection.execute(text("SELECT pg_advisory_lock(:k)"), {"k": RUN})
    connection.commit()
    value = connection.execute(text("SELECT value FROM counter")).scalar()
    connection.commit()
    done = connection.execute(text("UPDATE counter SET value = :n WHERE value = :o"), {"n": value + 1, "o": value})
    check(done.rowcount, 1, "rows updated under the lock")
    connection.commit()
    check(connection.execute(text("SELECT pg_advisory_unlock(:k)"), {"k": RUN}).scalar(), True, "unlock")
    connection.commit()


def temp(number, connection):
    connection.execute(text("CREATE TEMPORARY TABLE mine (n int, value text)"))
    connection.commit()
    for n in range(5):
        connection.execute(text("INSERT INTO mine VALUES (:n, :v)"), {"n": n, "v": f"s{number}"})
        connection.commit()
    check(tuple(connection.execute(text("SELECT count(*), min(value), max(value) FROM mine")).one()), (5, f"s{number}", f"s{number}"))
    connection.commit()
    connection.execute(text("DROP TABLE mine"))
    connection.commit()


def settings(number, connection):
    zone = ZONES[number % len(ZONES)]
    connection.execute(text(f"SET search_path TO s{number}, public"))
    connection.execute(text(f"SET TIME ZONE '{zone}'"))
    connection.commit()
    for _ in range(10):
        check(tuple(connection.execute(text("SELECT session, current_setting('TimeZone') FROM whoami")).one()), (number, zone))
        connection.commit()
    connection.execution_options(isolation_level="SERIALIZABLE")
    check(connection.execute(text("SHOW transaction_isolation")).scalar(), "serializable")
    connection.commit()


def cursor(number, connection):
    """stream_results: a named cursor, or what the driver has."""
    for _ in range(3):
        wanted = [number * 1000 + n for n in range(1, 351)]
        result = connection.execution_options(stream_results=True).execute(
            text("SELECT CAST(:s AS int) * 1000 + n FROM generate_series(1, 350) AS n"), {"s": number})
        check([row[0] for row in result], wanted)
        connection.commit()


BODIES = [transactions, prepared, error, advisory, temp, settings, cursor]


def alone_pool():
    """An engine for all, with its pool of five and ten more; pre_ping asks before a connection is used again."""
    engine = create_engine(url(), pool_pre_ping=True)

    def use(number, _):
        for n in range(5):
            with engine.begin() as connection:
                connection.execute(text("CREATE TEMPORARY TABLE mine (n int) ON COMMIT DROP"))
                check(connection.execute(text("SELECT CAST(:s AS int)"), {"s": number}).scalar(), number)
            with engine.connect() as connection:
                # Not committed: rolled back when it comes back.
                connection.execute(text("INSERT INTO items (session, n, value) VALUES (:s, 0, 'lost')"), {"s": number})
        with engine.connect() as connection:
            check(connection.execute(text("SELECT count(*) FROM items WHERE session = :s"), {"s": number}).scalar(), 0)

    errors = threads(use, lambda: None, lambda _: None)
    engine.dispose()
    if errors:
        raise errors[0]


class Connected:
    """A connection of an engine of its own."""

    async def close(self):
        await self.connection.close()
        await self.engine.dispose()


async def connect_async():
    it = Connected()
    it.engine = create_async_engine(url())
    it.connection = await it.engine.connect()
    return it


def asynchronous(body):
    async def run(number, connected):
        await connected.connection.run_sync(lambda connection: body(number, connection))

    return run


async def pool_async(number, connected):
    for _ in range(5):
        async with AsyncSession(connected.engine) as session:
            session.add(Item(session=number, n=0, value=f"s{number}"))
            await session.flush()
            check(await session.scalar(text("SELECT count(*) FROM items WHERE session = :s"), {"s": number}), 1)


async def cursor_async(number, connected):
    async with connected.engine.connect() as connection:
        rows = [r[0] async for r in await connection.stream(text("SELECT n + CAST(:s AS int) FROM generate_series(1, 350) AS n"), {"s": number})]
        check(rows, [n + number for n in range(1, 351)])


def connect():
    it = Connected()
    it.engine = create_engine(url())
    it.connection = it.engine.connect()
    return it


def close(connected):
    connected.connection.close()
    connected.engine.dispose()


if __name__ == "__main__":
    version = f"SQLAlchemy {sqlalchemy.__version__}"
    if DIALECT == "asyncpg":
        bodies = {b.__name__: asynchronous(b) for b in BODIES if b is not cursor}
        main(version, bodies | {"cursor": cursor_async, "pool": pool_async}, connect_async)
    else:
        def synchronous(body):
            return lambda number, connected: body(number, connected.connection)

        main(version, {b.__name__: synchronous(b) for b in BODIES} | {"pool": alone_pool}, connect, close)
