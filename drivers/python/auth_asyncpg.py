"""asyncpg: libpq's sslmode by name, files of certificates by a context."""

import asyncio
import ssl

import asyncpg

from auth_common import NotThere, main


def context_of(case):
    """The context that stands for the mode, or its name where that is enough."""
    mode = case["sslmode"]
    direct = case.get("sslnegotiation") == "direct"
    if mode in ("disable", "prefer") or (mode == "require" and "sslcert" not in case and not direct):
        return mode
    context = ssl.create_default_context(cafile=case.get("sslrootcert"))
    context.check_hostname = mode == "verify-full"
    if mode not in ("verify-ca", "verify-full"):
        context.verify_mode = ssl.CERT_NONE
    if "sslcert" in case:
        context.load_cert_chain(case["sslcert"], case["sslkey"])
    if direct:
        context.set_alpn_protocols(["postgresql"])
    return context


async def connect(case):
    more = {"direct_tls": True} if case.get("sslnegotiation") == "direct" else {}
    connection = await asyncpg.connect(
        host=case["host"], port=int(case["port"]), user=case["user"], password=case["password"],
        database=case["dbname"], ssl=context_of(case), timeout=20, **more)
    try:
        return await connection.fetchval("SELECT current_user")
    finally:
        await connection.close()


def log_in(case):
    if case.get("channel_binding") == "require":
        raise NotThere
    return asyncio.run(connect(case))


main(f"asyncpg {asyncpg.__version__}", log_in,
     (asyncpg.PostgresError, asyncpg.InterfaceError, ssl.SSLError, ConnectionError))
