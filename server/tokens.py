"""Device tokens: issued, and verified on every request.

May be relied on: `verify` returns only for an HS256 token signed with our secret, with whole-second `iat` and
`exp`, not expired, of a device that is known and not revoked, issued since the device's tokens count and
not revoked by its id. The database is asked each time, after the signature: a revocation is effective on
the next request. A token is never stored and never appears in an error; its `jti` is recorded before it is
handed out.

Stricter than Supabase's storage server: a token without `exp` or `iat`, issued in the future, or of a
device for more than 30 days is refused.
"""

import math
import uuid
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import jwt
import psycopg

from server.database import named_queries
from server.errors import Misconfigured, ServerError
from wire.device import device_id_problem

ALGORITHM = "HS256"
EDGE_UPLOADER = "edge_uploader"
SERVICE_ROLE = "service_role"
ROLES = (EDGE_UPLOADER, SERVICE_ROLE)
DAYS_MAX = {EDGE_UPLOADER: 30, SERVICE_ROLE: 3650}
"""A device's token travels to a shop; a service token stays with the operator, as a project's own does."""
DAY_S = 86_400
AHEAD_S_MAX = 300
"""How far `iat` may lie ahead: a rotation starts at the next second, and two servers' clocks differ."""

ROW_REFUSED = "new row violates row-level security policy"
"""What Supabase's storage server says when its policy refuses a device."""

_NO_CHECKS_OF_CLAIMS: Any = {f"verify_{claim}": False for claim in ("exp", "nbf", "iat", "aud", "iss", "sub", "jti")}
_REFUSALS = {
    "token revoked": "this token was revoked",
    "token outdated": "this token was issued before the device's tokens were renewed",
    "device unknown": "the device of this token is not known here",
    "device revoked": "the device of this token is revoked",
}
_QUERIES = named_queries("tokens")


class TokenRefused(ServerError):
    """This token opens nothing.

    `http_status` is for endpoints of ours; the `storage_` fields are what Supabase's storage server
    answers in the body of a 400.
    """

    http_status = 401

    def __init__(
        self,
        message: str,
        *,
        storage_message: str | None = None,
        storage_status: str = "403",
        storage_code: str = "AccessDenied",
    ) -> None:
        super().__init__(message)
        self.storage_message = storage_message or message
        self.storage_status = storage_status
        self.storage_code = storage_code


class SubjectRefused(TokenRefused):
    """This token is genuine, but whom it names may not do this."""

    http_status = 403

    def __init__(self, message: str) -> None:
        super().__init__(message, storage_message=ROW_REFUSED)


@dataclass(frozen=True, slots=True)
class PreviousSecret:
    """The secret before the present one: what it signed counts for a while, and it signs nothing any more."""

    text: str = field(repr=False)
    until: datetime


@dataclass(frozen=True, slots=True)
class Identity:
    """Whom a verified token names. Times in seconds since 1970."""

    subject: str  # the device id, for edge_uploader
    role: str
    jti: str | None
    issued_at: int
    expires_at: int

    @property
    def claims(self) -> dict[str, Any]:
        """What PostgREST hands to a function as `request.jwt.claims`."""
        claims = {"role": self.role, "sub": self.subject, "iat": self.issued_at, "exp": self.expires_at}
        return claims | ({"jti": self.jti} if self.jti else {})


def add_device(connection: psycopg.Connection, device_id: str) -> bool:
    """Make a device known; True when it was not. Raises Misconfigured when this can't name a device."""
    problem = device_id_problem(device_id)
    if problem:
        raise Misconfigured(f"{device_id!r} can't name a device: {problem}.")
    return connection.execute(_QUERIES["add_device"], {"device_id": device_id}).fetchone() is not None


def issue(connection: psycopg.Connection, secret: str, subject: str, role: str, *, days: int, now: datetime) -> str:
    """Issue a token that is good for `days` from `now` on, and record its id.

    Raises Misconfigured when role, days or device don't allow it. A device whose tokens were renewed within
    this second gets one that starts with the next: otherwise it would be outdated at once.
    """
    if role not in ROLES:
        raise Misconfigured(f"the role is one of {', '.join(ROLES)}.")
    if not 1 <= days <= DAYS_MAX[role]:
        raise Misconfigured(f"a token of {role} is good for 1 to {DAYS_MAX[role]} days.")
    issued_at = math.floor(now.timestamp())
    if role == EDGE_UPLOADER:
        issued_at = max(issued_at, _counts_from(connection, subject))
    claims = {
        "role": role,
        "sub": subject,
        "iat": issued_at,
        "exp": issued_at + days * DAY_S,
        "jti": str(uuid.uuid4()),
    }
    connection.execute(
        _QUERIES["record"],
        {
            "jti": claims["jti"],
            "subject": subject,
            "role": role,
            "issued_at": issued_at,
            "expires_at": claims["exp"],
        },
    )
    return jwt.encode(claims, secret, algorithm=ALGORITHM)


def verify(token: str, secret: str, connection: psycopg.Connection, now: datetime) -> Identity:
    """Return whom this token names. Raises TokenRefused (401) or SubjectRefused (403)."""
    identity = read(token, secret, now)
    admit(connection, identity)
    return identity


def read(token: str, secret: str, now: datetime, previous: PreviousSecret | None = None) -> Identity:
    """Check signature and times, without the database. Raises TokenRefused or SubjectRefused.

    A token signed with the `previous` secret counts until that one's end.
    """
    try:
        claims = jwt.decode(token, secret, algorithms=[ALGORITHM], options=_NO_CHECKS_OF_CLAIMS)
    except jwt.InvalidSignatureError:
        if previous is not None and now < previous.until:
            return read(token, previous.text, now)
        raise TokenRefused("signature verification failed") from None
    except jwt.InvalidAlgorithmError:
        raise TokenRefused('"alg" (Algorithm) Header Parameter value not allowed') from None
    except jwt.PyJWTError:
        raise TokenRefused("Invalid Compact JWS") from None
    expires_at, issued_at = _whole_seconds(claims, "exp"), _whole_seconds(claims, "iat")
    now_s = now.timestamp()
    if expires_at <= now_s:
        raise TokenRefused('"exp" claim timestamp check failed')
    not_before = claims.get("nbf", 0)
    if not isinstance(not_before, int | float) or not_before > now_s:
        raise TokenRefused('"nbf" claim timestamp check failed')
    if issued_at > now_s + AHEAD_S_MAX:
        raise TokenRefused('"iat" claim lies in the future')
    role, subject, jti = (claims.get(name) for name in ("role", "sub", "jti"))
    if role == EDGE_UPLOADER and expires_at - issued_at > DAYS_MAX[EDGE_UPLOADER] * DAY_S:
        raise TokenRefused(f"a device's token is good for at most {DAYS_MAX[EDGE_UPLOADER]} days")
    if not isinstance(subject, str) and role == EDGE_UPLOADER:
        raise SubjectRefused("this token names no device: its sub claim is missing")
    return Identity(
        subject=subject if isinstance(subject, str) else "",
        role=role if isinstance(role, str) and role else "anon",
        jti=jti if isinstance(jti, str) else None,
        issued_at=issued_at,
        expires_at=expires_at,
    )


def admit(connection: psycopg.Connection, identity: Identity) -> None:
    """Ask the database whether this identity still counts. Raises TokenRefused or SubjectRefused."""
    row = connection.execute(
        _QUERIES["refusal"],
        {
            "role": identity.role,
            "subject": identity.subject,
            "issued_at": identity.issued_at,
            "jti": identity.jti,
        },
    ).fetchone()
    refusal = row[0] if row else None
    if refusal is None:
        return
    if refusal.startswith("device"):
        raise SubjectRefused(_REFUSALS[refusal])
    raise TokenRefused(_REFUSALS[refusal], storage_message=ROW_REFUSED)


def any_device(connection: psycopg.Connection) -> bool:
    """Whether this database knows any device: then the secret of their tokens must not be made anew."""
    row = connection.execute(_QUERIES["any_device"]).fetchone()
    return bool(row and row[0])


def device_known(connection: psycopg.Connection, device_id: str) -> bool:
    """Whether this device may deliver: known and not revoked."""
    row = connection.execute(_QUERIES["device"], {"device_id": device_id}).fetchone()
    return row is not None and row[0] is None


def bearer(authorization: str | None) -> str:
    """Return the token of an Authorization header. Raises TokenRefused when there is none."""
    if authorization is None:
        raise TokenRefused(
            "an Authorization header with a token is required: Authorization: Bearer TOKEN",
            storage_message="headers must have required property 'authorization'",
            storage_status="400",
            storage_code="InvalidRequest",
        )
    scheme, _, token = authorization.strip().partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        # Supabase's storage server takes a bare token too.
        token = authorization
    return token.strip()


def _counts_from(connection: psycopg.Connection, device_id: str) -> int:
    row = connection.execute(_QUERIES["device"], {"device_id": device_id}).fetchone()
    if row is None:
        raise Misconfigured(f"device {device_id!r} is not known here: add it first.")
    revoked_at, tokens_valid_from = row
    if revoked_at is not None:
        raise Misconfigured(f"device {device_id!r} was revoked on {revoked_at:%Y-%m-%d}: it gets no token.")
    return math.ceil(tokens_valid_from.timestamp()) if tokens_valid_from else 0


def _whole_seconds(claims: dict[str, Any], name: str) -> int:
    value = claims.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise TokenRefused(f'"{name}" claim must be a number of whole seconds')
    return value
