"""Posting without a token, for trying things out on one machine: `--open`.

May be relied on: only a program on this machine gets in here. The listener is on loopback; what a web page sends
(an Origin), what comes under another machine's name (DNS that points at us), and what a proxy says it forwards is
refused. A proxy that says nothing can't be told from a program, so an open server must never stand behind one.
"""

import structlog
from psycopg_pool import ConnectionPool
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException

from server.config import Address
from server.errors import Misconfigured
from server.tokens import add_device, device_known
from wire.device import device_id_problem
from wire.loopback import is_loopback_host, is_loopback_name

FORWARDED = ("forwarded", "via", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-real-ip")
"""What a proxy adds when it says that it is one."""

log = structlog.get_logger()


def refuse_open_to_others(address: Address) -> None:
    """Raise Misconfigured where whoever listens here can be reached from another machine."""
    if not is_loopback_name(address.host):
        raise Misconfigured(
            f"--open lets anybody post sales without a token, and {address.host} can be reached from other machines: "
            "leave --open out, or listen on 127.0.0.1."
        )


def device_without_token(headers: Headers, pool: ConnectionPool) -> str:
    """Return the device for which a post without a token counts, made known if it is new.

    Raises HTTPException 400 or 403.
    """
    if not is_loopback_host(headers.get("host", "")):
        raise HTTPException(403, "without a token, the Host header must name this machine: 127.0.0.1 or localhost.")
    if "origin" in headers:
        raise HTTPException(403, "web pages may not post without a token: send it from a program.")
    forwarded = next((name for name in FORWARDED if name in headers), None)
    if forwarded:
        raise HTTPException(403, f"a proxy forwarded this ({forwarded}): from elsewhere a token is required.")
    device_id = headers.get("x-device-id")
    if device_id is None:
        raise HTTPException(400, "without a token, name the device in x-device-id, such as x-device-id: pi-05.")
    problem = device_id_problem(device_id)
    if problem:
        raise HTTPException(400, f"x-device-id can't name a device: {problem}.")
    with pool.connection() as connection:
        if add_device(connection, device_id):
            log.warning("device_added_without_token", device_id=device_id)
        elif not device_known(connection, device_id):
            raise HTTPException(403, f"device {device_id!r} is revoked: it delivers no more.")
    return device_id
