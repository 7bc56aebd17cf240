"""Who a device is: let in by a one-time code, known by its key from then on.

May be relied on:
- A token is issued only to who proves, over a nonce of ours that was never used before, to hold the key: the one that
  a good code brings along, or the one that the device is known by. A stolen token opens nothing here.
- A code serves one key. The same key may use it again while it is good, for its answer may have been lost on the way.
- A new key ends what was before it: tokens issued earlier, the key before, and a revocation, for an operator made the
  code after that (`devices revoke` voids those from before).
- A revocation is effective on the next request. After the database was restored from a backup nothing is issued until
  an operator has confirmed who is revoked: the backup may not know.
- No refusal says whether a device exists, but to who proved to be it.
"""

import hashlib
import math
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import jwt
import psycopg
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from psycopg.rows import dict_row

from server import nonces, tokens
from server.database import named_queries
from server.errors import ServerError
from wire import identity
from wire.device import device_id_problem
from wire.identity import EnrolRequest, TokenAnswer, TokenRequest

TOKEN_DAYS = tokens.DAYS_MAX[tokens.EDGE_UPLOADER]
HELD_RETRY_S = 900

_QUERIES = named_queries("identity")
_UNCHECKED: Any = {"verify_signature": False}
_SIGNATURE_ALONE: Any = {
    # The times of an assertion are the nonce's, checked by our own clock.
    **{f"verify_{claim}": False for claim in ("exp", "nbf", "iat", "iss", "sub", "jti")},
    "require": ["iss", "sub", "aud", "exp", "jti"],
}


class Refused(ServerError):
    """No token is issued. `error` is one of RFC 6749's, section 5.2."""

    def __init__(self, error: str, message: str, *, http_status: int = 400, retry_after_s: int | None = None) -> None:
        super().__init__(message)
        self.error = error
        self.http_status = http_status
        self.retry_after_s = retry_after_s


class WrongCode(Refused):
    """This code opens nothing: it was mistyped, guessed, used or is too old."""

    def __init__(self) -> None:
        super().__init__(
            identity.INVALID_GRANT,
            "this code is not, or no longer, good: check it for typing errors, or ask the back office for a new one",
        )


@dataclass(frozen=True, slots=True)
class _Assertion:
    """An assertion over a nonce of ours; who signed it is still to be checked."""

    text: str
    subject: str
    nonce: bytes
    expires_at: datetime


def enrol(connection: psycopg.Connection, request: EnrolRequest, secret: str, now: datetime) -> TokenAnswer:
    """Let the key of a request in by its code, and issue its first token. Raises Refused; WrongCode for a try lost."""
    public_key = identity.key_of(request.public_key)
    if public_key is None:
        raise Refused(identity.INVALID_REQUEST, "public_key is not an Ed25519 key of 32 bytes in base64url")
    if request.device_id is not None and device_id_problem(request.device_id):
        raise Refused(identity.INVALID_REQUEST, "device_id can't name a device")
    assertion = _read(request.assertion, secret, now)
    if assertion.subject != request.public_key:
        raise _unproved()
    _prove(assertion, public_key)
    code = identity.plain_code(request.code)
    if code is None:
        raise WrongCode
    with connection.transaction(), connection.cursor(row_factory=dict_row) as cursor:
        _refuse_while_held(connection)
        # Looked up by its hash: how long that takes tells nothing of the code.
        enrolment = cursor.execute(_QUERIES["enrolment"], {"code_sha256": code_hash(code), "now": now}).fetchone()
        if enrolment is None or enrolment["public_key"] not in (None, public_key):
            raise WrongCode
        device_id = enrolment["device_id"]
        if request.device_id not in (None, device_id):
            raise Refused(
                identity.INVALID_GRANT,
                f"this code is for {device_id}, but this device is {request.device_id}: it was not used up",
            )
        _use_up(connection, assertion, now)
        device = cursor.execute(_QUERIES["device"], {"device_id": device_id}).fetchone()
        assert device
        if enrolment["used_at"] is None:
            values = {"code_sha256": code_hash(code), "device_id": device_id, "public_key": public_key, "now": now}
            connection.execute(_QUERIES["use_code"], values)
            connection.execute(_QUERIES["let_in"], values | {"valid_from": next_second(now)})
        elif device["revoked_at"] is not None or device["public_key"] != public_key:
            raise WrongCode  # another key came after it
        return _issued(connection, device_id, secret, now)


def renew(connection: psycopg.Connection, request: TokenRequest, secret: str, now: datetime) -> TokenAnswer:
    """Issue a token to the device that signed a request. Raises Refused."""
    assertion = _read(request.assertion, secret, now)
    if device_id_problem(assertion.subject):
        raise _unproved()
    with connection.transaction(), connection.cursor(row_factory=dict_row) as cursor:
        _refuse_while_held(connection)
        device = cursor.execute(_QUERIES["device"], {"device_id": assertion.subject}).fetchone()
        if device is None or device["public_key"] is None:
            raise _unproved()
        _prove(assertion, device["public_key"])
        if device["revoked_at"] is not None:
            raise Refused(identity.INVALID_CLIENT, "this device is revoked: ask the back office", http_status=401)
        _use_up(connection, assertion, now)
        return _issued(connection, assertion.subject, secret, now)


def code_hash(code: str) -> bytes:
    """What is stored of a code. It has 80 random bits, so a plain hash can't be searched."""
    return hashlib.sha256(code.encode()).digest()


def next_second(now: datetime) -> datetime:
    """From when on tokens count that are issued after a moment: they have whole seconds."""
    return datetime.fromtimestamp(math.floor(now.timestamp()) + 1, UTC)


def _read(text: str, secret: str, now: datetime) -> _Assertion:
    """Check everything but the signature, without the database. Raises Refused."""
    try:
        claims = jwt.decode(text, options=_UNCHECKED)
    except (jwt.PyJWTError, ValueError, RecursionError):
        raise _unproved() from None
    subject, nonce = claims.get("sub"), claims.get("jti")
    if not isinstance(subject, str) or not isinstance(nonce, str) or claims.get("iss") != subject:
        raise _unproved()
    try:
        remembered, expires_at = nonces.check(nonce, secret, now)
    except nonces.NonceRefused:
        raise _unproved() from None
    if claims.get("exp") != int(expires_at.timestamp()):
        raise _unproved()
    return _Assertion(text, subject, remembered, expires_at)


def _prove(assertion: _Assertion, public_key: bytes) -> None:
    try:
        jwt.decode(
            assertion.text,
            Ed25519PublicKey.from_public_bytes(public_key),
            algorithms=[identity.ALGORITHM],
            audience=identity.AUDIENCE,
            options=_SIGNATURE_ALONE,
        )
    except (jwt.PyJWTError, ValueError):
        raise _unproved() from None


def _use_up(connection: psycopg.Connection, assertion: _Assertion, now: datetime) -> None:
    """Have the nonce used, once. A second request with it waits here for the first one's end."""
    values = {"nonce": assertion.nonce, "expires_at": assertion.expires_at, "now": now}
    if connection.execute(_QUERIES["use_nonce"], values).fetchone() is None:
        raise _unproved()
    connection.execute(_QUERIES["forget_nonces"], values)


def _refuse_while_held(connection: psycopg.Connection) -> None:
    row = connection.execute(_QUERIES["settings"]).fetchone()
    if row and row[0] is not None:
        raise Refused(
            identity.TEMPORARILY_UNAVAILABLE,
            "the server was restored from a backup, and its operator has yet to say who is revoked: "
            "'scout-server devices confirm-revoked'",
            http_status=503,
            retry_after_s=HELD_RETRY_S,
        )


def _issued(connection: psycopg.Connection, device_id: str, secret: str, now: datetime) -> TokenAnswer:
    token = tokens.issue(connection, secret, device_id, tokens.EDGE_UPLOADER, days=TOKEN_DAYS, now=now)
    return TokenAnswer(token, identity.BEARER, TOKEN_DAYS * tokens.DAY_S, device_id)


def _unproved() -> Refused:
    """One answer for a wrong key, another's nonce, a used one and an unknown device."""
    return Refused(
        identity.INVALID_CLIENT,
        "this assertion is not accepted: take a new nonce and sign with the device's own key; "
        "where the key is lost, enrol with a new code",
        http_status=401,
    )
