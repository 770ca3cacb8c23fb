"""What the Python programs share: 50 sessions at once, one line a scenario."""

import asyncio
import os
import sys
import threading
import traceback

SESSIONS = int(os.environ.get("SESSIONS", "50"))
# Keys of advisory locks and names of temporary tables that no other run uses.
RUN = os.getpid()
ZONES = ["UTC", "Asia/Tokyo", "America/New_York", "Europe/Paris", "Australia/Sydney"]


def check(got, wanted, what=""):
    if got != wanted:
        raise AssertionError(f"{what} is {got!r}, not {wanted!r}".strip())


def raises(error, function, *arguments):
    """The error that the call must fail with."""
    try:
        function(*arguments)
    except error as e:
        return e
    raise AssertionError(f"no error from {arguments}")


def cancelled(error, cancel, function, *arguments):
    """Cancels a call until it fails with the error: a cancel that comes before the call's statement is at work, say
    while its BEGIN waits in a queue, has nothing to hit, with a pooler as without."""
    done = threading.Event()

    def again():
        while not done.wait(0.3):
            cancel()

    canceller = threading.Thread(target=again)
    canceller.start()
    try:
        raises(error, function, *arguments)
    finally:
        done.set()
        canceller.join()


def report(name, errors):
    """`errors`: one for each session that failed."""
    if not errors:
        print(f"ok {name}", flush=True)
        return
    first = errors[0]
    at = next((f for f in reversed(traceback.extract_tb(first.__traceback__)) if "/drivers/" in f.filename and f.name != "check"), None)
    line = f" [{at.line}]" if at else ""
    text = " ".join(f"{type(first).__name__}: {first}".split())
    print(f"FAILED {name} {len(errors)} of {SESSIONS} sessions: {text[:300]}{line}", flush=True)
    if os.environ.get("VERBOSE"):
        for error in errors:
            traceback.print_exception(error)


def main(version, scenarios, connect=None, close=lambda connection: connection.close()):
    """Scenarios by name: body(session, connection), the connection made by connect(). One named `alone_...` is called
    once, with nothing."""
    if sys.argv[1:] == ["--version"]:
        print(version)
        return
    for name in sys.argv[1:] or scenarios:
        if name not in scenarios:
            continue
        body = scenarios[name]
        if body.__name__.startswith("alone"):
            try:
                body()
                report(name, [])
            except Exception as e:
                report(name, [e])
        elif asyncio.iscoroutinefunction(body):
            report(name, asyncio.run(tasks(body, connect)))
        else:
            report(name, threads(body, connect, close))


def threads(body, connect, close):
    errors = []
    # Nobody starts before everybody is connected.
    all_here = threading.Barrier(SESSIONS)

    def session(number):
        try:
            try:
                connection = connect()
            finally:
                all_here.wait()
            body(number, connection)
            close(connection)
        except Exception as e:
            errors.append(e)

    running = [threading.Thread(target=session, args=(number,)) for number in range(SESSIONS)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    return errors


async def tasks(body, connect):
    connections = await asyncio.gather(*(connect() for _ in range(SESSIONS)), return_exceptions=True)
    errors = [c for c in connections if isinstance(c, BaseException)]
    if errors:
        return errors

    async def session(number, connection):
        await body(number, connection)
        await connection.close()

    results = await asyncio.gather(*map(session, range(SESSIONS), connections), return_exceptions=True)
    return [r for r in results if isinstance(r, BaseException)]
