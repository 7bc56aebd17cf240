"""Nonces for assertions: given to anybody, good once and for minutes, remembered only once they were used.

A nonce is the second at which it expires, 16 random bytes, and our seal over both. May be relied on: `check` returns
only for a nonce of ours that has not expired. Giving one out stores nothing, so that nobody fills the database; that
it is used once is the database's part (server/identity.py).
"""

import base64
import binascii
import hashlib
import hmac
import math
import secrets
from datetime import datetime

from wire.identity import NonceAnswer

LIFE_S = 300
"""Long enough for the slowest line; the shorter, the fewer used ones are to be remembered."""

_TIME_BYTES, _RANDOM_BYTES = 8, 16
_PURPOSE = b"scout-edge nonce\0"
"""So that no seal can be taken for the signature of a token, whose text has no such byte."""


class NonceRefused(ValueError):
    """This nonce is none of ours, or it has expired."""


def new_nonce(secret: str, now: datetime) -> NonceAnswer:
    """Return a nonce that is good from `now` on for LIFE_S."""
    expires_at = math.ceil(now.timestamp()) + LIFE_S
    content = expires_at.to_bytes(_TIME_BYTES) + secrets.token_bytes(_RANDOM_BYTES)
    return NonceAnswer(base64.urlsafe_b64encode(content + _seal(secret, content)).decode(), expires_at)


def check(nonce: str, secret: str, now: datetime) -> tuple[bytes, datetime]:
    """Return what is remembered of a nonce once it is used, and until when. Raises NonceRefused."""
    try:
        raw = base64.b64decode(nonce, altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise NonceRefused from None
    content, seal = raw[: _TIME_BYTES + _RANDOM_BYTES], raw[_TIME_BYTES + _RANDOM_BYTES :]
    if not hmac.compare_digest(seal, _seal(secret, content)):
        raise NonceRefused
    expires_at = int.from_bytes(content[:_TIME_BYTES])
    if expires_at <= now.timestamp():
        raise NonceRefused
    return content, datetime.fromtimestamp(expires_at, now.tzinfo)


def _seal(secret: str, content: bytes) -> bytes:
    return hmac.digest(secret.encode(), _PURPOSE + content, hashlib.sha256)
