"""Who is signed in: an operator's token is shown once, and exchanged for a cookie that means nothing elsewhere.

    POST /fleet/sign-in, token in the body ─▶ verified ─▶ a random cookie; the database keeps its HMAC and whose it is

May be relied on:
- The token is in no cookie, page or log. A cookie that is none of ours is known for that without the database.
- A session ends ten hours after it began, with its token, when that token is revoked, when the JWT secret is
  changed, and when its operator signs out: each on the next request.
- A request that changes something comes from a page of ours: its form carries a proof that is made from the cookie,
  and what the browser says of its origin is asked besides.

Sessions are rows, and no signed cookies, so that signing out ends one wherever a copy of it lies.
"""

import hashlib
import hmac
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from urllib.parse import urlsplit

import psycopg
from starlette.datastructures import Headers

from server.database import named_queries
from server.tokens import SERVICE_ROLE, Identity, SubjectRefused

COOKIE = "scout_session"
PATH = "/fleet"
SESSION_HOURS = 10
"""A working day: whoever begins one signs in once."""

_QUERIES = named_queries("sessions")


@dataclass(frozen=True, slots=True)
class Session:
    """A browser that is signed in. `proof` goes into its forms."""

    subject: str
    proof: str


def begin(connection: psycopg.Connection, secret: str, identity: Identity, now: datetime) -> str:
    """Begin a session of whom a verified token names; return the cookie. Raises SubjectRefused for a device's."""
    if identity.role != SERVICE_ROLE:
        raise SubjectRefused(
            "this is not an operator's token: 'scout-server tokens issue --role service_role --name YOU' makes one"
        )
    random = secrets.token_urlsafe(32)
    cookie = f"{random}.{_mark(secret, random)}"
    token_ends = datetime.fromtimestamp(identity.expires_at, UTC)
    connection.execute(
        _QUERIES["begin"],
        {
            "session_mac": _mac(secret, "session", cookie),
            "role": identity.role,
            "subject": identity.subject,
            "jti": identity.jti,
            "token_issued_at": identity.issued_at,
            "now": now,
            "expires_at": min(now + timedelta(hours=SESSION_HOURS), token_ends),
        },
    )
    return cookie


def find(connection: psycopg.Connection, secret: str, cookie: str | None, now: datetime) -> Session | None:
    """Whose session this cookie is; None when it is nobody's any more."""
    random, _, mark = (cookie or "").partition(".")
    # Who makes cookies up costs no query.
    if not cookie or not hmac.compare_digest(mark.encode(), _mark(secret, random).encode()):
        return None
    values = {"session_mac": _mac(secret, "session", cookie), "now": now}
    row = connection.execute(_QUERIES["find"], values).fetchone()
    return Session(row[0], _mac(secret, "form", cookie).hex()) if row else None


def end(connection: psycopg.Connection, secret: str, cookie: str) -> None:
    """Sign out."""
    connection.execute(_QUERIES["end"], {"session_mac": _mac(secret, "session", cookie)})


def set_cookie(cookie: str, headers: Headers, scheme: str) -> str:
    """The header that gives a browser its cookie; sent over TLS only, where the browser speaks TLS."""
    lasting = f"Max-Age={SESSION_HOURS * 3600 if cookie else 0}; Path={PATH}; HttpOnly; SameSite=Strict"
    return f"{COOKIE}={cookie}; {lasting}{'; Secure' if is_tls(headers, scheme) else ''}"


def is_tls(headers: Headers, scheme: str) -> bool:
    """Whether the browser speaks TLS, with us or with a proxy in front.

    Believing whoever says so makes the cookie stricter at worst.
    """
    return scheme == "https" or headers.get("x-forwarded-proto", "").partition(",")[0].strip().lower() == "https"


def is_proven(session: Session, proof: str) -> bool:
    """Whether a form was made by a page of this session."""
    return hmac.compare_digest(session.proof.encode(), proof.encode())


def is_from_here(headers: Headers) -> bool:
    """Whether a browser sent this from a page of ours. What is no browser says nothing, and is let pass.

    Sec-Fetch-Site is what the browser itself says, whatever proxy stands between; it says it over TLS and on this
    machine only. Elsewhere the origin names the host that was asked.
    """
    site = headers.get("sec-fetch-site")
    if site is not None:
        return site == "same-origin"
    origin = headers.get("origin")
    return origin is None or urlsplit_host(origin) == headers.get("host", "").lower()


def urlsplit_host(origin: str) -> str | None:
    """Host and port of an origin; None when it is none, such as `null`."""
    try:
        return urlsplit(origin).netloc.lower() or None
    except ValueError:
        return None


def way_back(asked: str) -> str:
    """Where to go after signing in: a page of ours, whatever was asked for."""
    is_plain = all(character.isascii() and character.isprintable() and character not in ' \\"<>' for character in asked)
    return asked if is_plain and (asked == PATH or asked.startswith((f"{PATH}/", f"{PATH}?"))) else PATH


def _mark(secret: str, random: str) -> str:
    """What shows that a cookie is one of ours."""
    return _mac(secret, "cookie", random).hex()[:32]


def _mac(secret: str, purpose: str, cookie: str) -> bytes:
    return hmac.digest(secret.encode(), f"scout-edge page {purpose} {cookie}".encode(), hashlib.sha256)
