"""What an operator does with devices: shut out, let in again, ask for another token.

May be relied on: each takes effect on the next request. Nothing here touches a sale.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta

import psycopg

from server.database import named_queries
from server.errors import Misconfigured

_QUERIES = named_queries("fleet")


def revoke(connection: psycopg.Connection, device_id: str, now: datetime) -> bool:
    """Shut a device out; False when it was out already. Raises Misconfigured when it is not known."""
    _refuse_unknown(connection, device_id)
    return connection.execute(_QUERIES["revoke_device"], {"device_id": device_id, "now": now}).fetchone() is not None


def restore(connection: psycopg.Connection, device_id: str, now: datetime) -> bool:  # noqa: ARG001
    """Take a revocation back: its tokens count again; False when there was none. Raises Misconfigured."""
    _refuse_unknown(connection, device_id)
    return connection.execute(_QUERIES["restore_device"], {"device_id": device_id}).fetchone() is not None


def rotate(connection: psycopg.Connection, device_ids: Sequence[str], *, at_once: bool, now: datetime) -> None:
    """Shut the present tokens of these devices out right away, where `at_once`."""
    if at_once:
        valid_from = now.replace(microsecond=0) + timedelta(seconds=1)
        connection.execute(_QUERIES["outdate_tokens"], {"device_ids": list(device_ids), "valid_from": valid_from})


def _refuse_unknown(connection: psycopg.Connection, device_id: str) -> None:
    if connection.execute(_QUERIES["known"], {"device_id": device_id}).fetchone() is None:
        raise Misconfigured(f"device {device_id!r} is not known here.")
