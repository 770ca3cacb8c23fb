"""Django's ORM on psycopg 3: autocommit, persistent connections, a connection for each thread."""

import os
import threading

import django
from django.conf import settings

env = os.environ
settings.configure(
    INSTALLED_APPS=["django.contrib.contenttypes", "django.contrib.auth", "django.contrib.sessions", "shop"],
    DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
    USE_TZ=True,
    TIME_ZONE="Europe/Paris",
    DATABASES={
        "default": {
            "ENGINE": "django.db.backends.postgresql",
            "NAME": env.get("PGDATABASE"),
            "USER": env.get("PGUSER"),
            "PASSWORD": env.get("PGPASSWORD"),
            "HOST": env.get("PGHOST"),
            "PORT": env.get("PGPORT"),
            "CONN_MAX_AGE": None,
        }
    },
)
django.setup()

from django.core.management import call_command  # noqa: E402
from django.db import DatabaseError, connection, transaction  # noqa: E402
from shop.models import Item, Product  # noqa: E402

import dbapi  # noqa: E402
from common import ZONES, check, main  # noqa: E402


def transactions(session, _):
    for n in range(10):
        try:
            with transaction.atomic():
                Item.objects.create(session=session, n=n, value=f"s{session}")
                Item.objects.bulk_create([Item(session=session, n=n, value=f"s{session}") for _ in range(5)])
                check(set(Item.objects.filter(session=session, n=n).values_list("value", flat=True)), {f"s{session}"})
                if n % 4 == 3:
                    raise KeyError
        except KeyError:
            pass
        check(Item.objects.filter(session=session, n=n).count(), 0 if n % 4 == 3 else 6)
    check(Item.objects.filter(session=session).update(value="x"), 48)
    check(Item.objects.filter(session=session).delete()[0], 48)
    # What Django asks for at its start: its own time zone.
    with connection.cursor() as cursor:
        check(dbapi.rows(cursor, "SHOW TIME ZONE"), [("UTC",)])


def error(session, _):
    for _ in range(5):
        try:
            with transaction.atomic():
                Item.objects.create(session=session, n=0, value="lost")
                try:
                    with transaction.atomic():
                        list(Item.objects.raw("SELECT * FROM nonsense"))
                    raise AssertionError("no error")
                except DatabaseError:
                    check(Item.objects.filter(session=session).count(), 1)
                list(Item.objects.raw("SELECT 1 / 0 AS id"))
            raise AssertionError("no error")
        except DatabaseError:
            check(Item.objects.filter(session=session).count(), 0)


def cursor(session, _):
    """iterator(): a server-side cursor, in a transaction."""
    Item.objects.bulk_create([Item(session=session, n=n, value=f"s{session}") for n in range(350)])
    for _ in range(3):
        with transaction.atomic():
            got = [(i.n, i.value) for i in Item.objects.filter(session=session).order_by("n").iterator(chunk_size=100)]
        check(got, [(n, f"s{session}") for n in range(350)])


def hold(session, _):
    """iterator() in no transaction: the cursor is WITH HOLD."""
    Item.objects.bulk_create([Item(session=session, n=n, value=f"s{session}") for n in range(350)])
    for _ in range(3):
        got = []
        for item in Item.objects.filter(session=session).order_by("n").iterator(chunk_size=100):
            got.append((item.n, item.value))
            if item.n % 100 == 50:
                # Another statement while the cursor is open.
                check(Item.objects.filter(session=session, n=item.n).count(), 1)
        check(got, [(n, f"s{session}") for n in range(350)])


def raw(body):
    """A scenario of dbapi, with Django's connection: commit() is only for a transaction, and here there is none."""

    class Autocommit:
        cursor = staticmethod(lambda: connection.cursor())
        commit = staticmethod(lambda: None)

    return lambda session, _: body(session, Autocommit)


def settings_(session, _):
    zone = ZONES[session % len(ZONES)]
    with connection.cursor() as cursor:
        cursor.execute(f"SET search_path TO s{session}, public")
        cursor.execute("SELECT set_config('app.me', %s, false)", [f"s{session}"])
        cursor.execute(f"SET TIME ZONE '{zone}'")
        for _ in range(10):
            check(dbapi.rows(cursor, "SELECT session, current_setting('TimeZone'), current_setting('app.me') FROM whoami"),
                  [(session, zone, f"s{session}")])


def cancel(session, _):
    for _ in range(2):
        connection.ensure_connection()
        timer = threading.Timer(0.3, connection.connection.cancel_safe)
        timer.start()
        try:
            with connection.cursor() as cursor:
                cursor.execute("SELECT pg_sleep(50)")
            raise AssertionError("no error")
        except DatabaseError:
            pass
        timer.join()
        check(Item.objects.filter(session=session).count(), 0)


def alone_migrate():
    call_command("migrate", verbosity=0)
    check(Product.objects.filter(price=0).count(), 1000)
    call_command("migrate", "shop", "0001", verbosity=0)
    call_command("migrate", "shop", verbosity=0)
    check(Product.objects.count(), 1000)
    call_command("migrate", "shop", "zero", verbosity=0)
    call_command("inspectdb", stdout=open(os.devnull, "w"))
    connection.close()


if __name__ == "__main__":
    main(
        f"Django {django.__version__}",
        {
            "transactions": transactions,
            "prepared": raw(dbapi.prepared),
            "error": error,
            "cancel": cancel,
            "cursor": cursor,
            "settings": settings_,
            "advisory": raw(dbapi.advisory),
            "temp": raw(dbapi.temp),
            "hold": hold,
            "migrate": alone_migrate,
        },
        # Not the method itself: it is of the connection of the thread that names it.
        lambda: connection.ensure_connection(),
        lambda _: connection.close(),
    )
