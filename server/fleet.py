"""What an operator does with devices and tokens: list, let in, shut out, ask for another token.

May be relied on: each takes effect on the next request. A code is returned once and stored as its hash alone; tokens
are known by their ids. Nothing here touches a sale.
"""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

import psycopg
from psycopg.rows import class_row

from server import tokens
from server.database import named_queries
from server.errors import Misconfigured
from server.identity import code_hash, next_second
from wire.identity import CODE_ALPHABET, CODE_SYMBOLS, shown_code

_QUERIES = named_queries("fleet")


@dataclass(frozen=True, slots=True)
class Device:
    """A device as an operator sees it."""

    device_id: str
    source: str
    added_at: datetime
    revoked_at: datetime | None
    enrolled_at: datetime | None  # None: no key, its tokens are put in place by hand
    tokens_valid_from: datetime | None
    token_expires_at: datetime | None  # of the newest token that counts
    heard_at: datetime | None
    version: str | None
    code_expires_at: datetime | None  # of a code that waits to be used

    @property
    def state(self) -> str:
        """In a word or two."""
        if self.revoked_at:
            return "revoked"
        return "enrolled" if self.enrolled_at else "by hand" if self.token_expires_at else "no token"


@dataclass(frozen=True, slots=True)
class Token:
    """A token that was issued, by its id."""

    jti: str
    subject: str
    role: str
    issued_at: datetime
    expires_at: datetime
    state: str  # good | to be renewed | outdated | revoked | device revoked | expired
    renews_itself: bool
    heard_at: datetime | None

    @property
    def counts(self) -> bool:
        """Whether it opens anything."""
        return self.state in ("good", "to be renewed")


def devices(connection: psycopg.Connection, now: datetime) -> list[Device]:
    """Every device, by name."""
    return _devices(connection, None, now)


def device(connection: psycopg.Connection, device_id: str, now: datetime) -> Device:
    """One device. Raises Misconfigured when it is not known."""
    found = _devices(connection, device_id, now)
    if not found:
        raise Misconfigured(f"device {device_id!r} is not known here: 'scout-server devices list' shows all.")
    return found[0]


def revoke(connection: psycopg.Connection, device_id: str, now: datetime) -> bool:
    """Shut a device out, its open codes included; False when it was out already. Raises Misconfigured."""
    device(connection, device_id, now)
    with connection.transaction():
        connection.execute(_QUERIES["void_codes"], {"device_id": device_id, "now": now})
        return (
            connection.execute(_QUERIES["revoke_device"], {"device_id": device_id, "now": now}).fetchone() is not None
        )


def restore(connection: psycopg.Connection, device_id: str, now: datetime) -> bool:
    """Take a revocation back: its key and tokens count again; False when there was none. Raises Misconfigured."""
    device(connection, device_id, now)
    return connection.execute(_QUERIES["restore_device"], {"device_id": device_id}).fetchone() is not None


def new_code(connection: psycopg.Connection, device_id: str, life: timedelta, now: datetime) -> tuple[str, bool]:
    """Make the one code with which this device can be enrolled; those before it are void.

    Return it as people read it, and whether the device is new. Raises Misconfigured when this can't name a device.
    """
    code = "".join(secrets.choice(CODE_ALPHABET) for _ in range(CODE_SYMBOLS))
    with connection.transaction():
        added = tokens.add_device(connection, device_id)
        connection.execute(_QUERIES["void_codes"], {"device_id": device_id, "now": now})
        values = {"code_sha256": code_hash(code), "device_id": device_id, "now": now, "expires_at": now + life}
        connection.execute(_QUERIES["add_code"], values)
    return shown_code(code), added


def list_tokens(connection: psycopg.Connection, subject: str | None, now: datetime) -> list[Token]:
    """Every token of a device or service, or all, newest first."""
    with connection.cursor(row_factory=class_row(Token)) as cursor:
        return cursor.execute(_QUERIES["tokens"], {"subject": subject, "now": now}).fetchall()


def due(issued: Sequence[Token], by: datetime) -> list[Token]:
    """Of each device that is let in, the newest token if it expires before `by`."""
    newest: dict[str, Token] = {}
    for token in issued:
        if token.role == tokens.EDGE_UPLOADER and token.state in ("good", "to be renewed", "expired"):
            known = newest.setdefault(token.subject, token)
            newest[token.subject] = max(known, token, key=lambda one: one.expires_at)
    return sorted((token for token in newest.values() if token.expires_at < by), key=lambda token: token.expires_at)


def revoke_token(connection: psycopg.Connection, jti: str, now: datetime) -> str | None:
    """Shut one token out; return whose it was, or None when it was out already. Raises Misconfigured."""
    try:
        values = {"jti": UUID(jti), "now": now}
    except ValueError:
        raise Misconfigured(f"{jti!r} is no id of a token: 'scout-server tokens list --all' shows them.") from None
    row = connection.execute(_QUERIES["revoke_token"], values).fetchone()
    if row is not None:
        return str(row[0])
    known = connection.execute(_QUERIES["token_known"], values).fetchone()
    if not (known and known[0]):
        raise Misconfigured(f"no token {jti} was issued here: 'scout-server tokens list --all' shows all.")
    return None


def rotate(connection: psycopg.Connection, device_ids: Sequence[str], *, at_once: bool, now: datetime) -> None:
    """Have devices renew their tokens at the next call home; `at_once` shuts the present ones out right away."""
    with connection.transaction():
        values = {"device_ids": list(device_ids), "now": now, "valid_from": next_second(now)}
        connection.execute(_QUERIES["ask_for_renewal"], values)
        if at_once:
            connection.execute(_QUERIES["outdate_tokens"], values)


def after_restore(connection: psycopg.Connection, now: datetime) -> None:
    """Hold renewals and void all codes: a backup forgot who was revoked, and which codes were used."""
    connection.execute(_QUERIES["hold_renewals"], {"now": now})
    connection.execute(_QUERIES["void_codes"], {"device_id": None, "now": now})


def renewals_held_since(connection: psycopg.Connection) -> datetime | None:
    """Since when renewals wait for an operator; None while they don't."""
    row = connection.execute(_QUERIES["renewals_held_since"]).fetchone()
    return row[0] if row else None


def confirm_revoked(connection: psycopg.Connection) -> None:
    """Let renewals go on."""
    connection.execute(_QUERIES["release_renewals"])


def _devices(connection: psycopg.Connection, device_id: str | None, now: datetime) -> list[Device]:
    with connection.cursor(row_factory=class_row(Device)) as cursor:
        return cursor.execute(_QUERIES["devices"], {"device_id": device_id, "now": now}).fetchall()
