"""What scripts/auth-drivers.sh asks: a login a line of standard input, as libpq's keywords."""

import sys


class NotThere(Exception):
    """The driver has no such thing."""


def main(version, log_in, refusals):
    """`log_in(case)` gives the user whose session it is; what refuses a login is one of `refusals`."""
    if sys.argv[1:] == ["--version"]:
        print(version)
        return
    for line in sys.stdin:
        case = dict(pair.split("=", 1) for pair in line.split())
        name, expect = case.pop("name"), case.pop("expect")
        try:
            try:
                got, text = "ok", log_in(case)
            except refusals as e:
                got, text = "refused", f"{type(e).__name__}: {e}"
            if got != expect:
                raise AssertionError(f"is {got}: {text}")
            if got == "ok" and text != case["user"]:
                raise AssertionError(f"logged in as {text}")
            print(f"ok {name}", flush=True)
        except NotThere:
            print(f"none {name}", flush=True)
        except Exception as e:
            print(f"FAILED {name} {' '.join(str(e).split())[:300]}", flush=True)
