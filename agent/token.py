"""The device token as the agent sees it: a file that somebody else may replace at any moment.

May be relied on: the file is read anew whenever it changed, so a token put in place by hand needs no
restart. Nothing here writes or prints a token.
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jwt

from agent.errors import CredentialsRefused
from agent.files import signature_of


@dataclass(frozen=True, slots=True)
class Token:
    """What the file holds. The signature is the server's to check."""

    text: str
    expires_at: datetime | None
    subject: str | None = None
    issued_at: datetime | None = None

    @property
    def half_over_at(self) -> datetime | None:
        """When the last half of its life begins; None when it doesn't say."""
        if self.expires_at is None or self.issued_at is None:
            return None
        return self.issued_at + (self.expires_at - self.issued_at) / 2

    def __repr__(self) -> str:
        """Never the token itself, which would end up in a traceback."""
        return f"Token(expires_at={self.expires_at})"


class TokenFile:
    """Remembers the token until the file changes."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._signature: tuple[int, int, int] | None = None
        self._token: Token | None = None

    def changed(self) -> bool:
        """Whether the file is another one than at the last `read`."""
        return signature_of(self._path) != self._signature

    def read(self) -> Token:
        """The present token; raise CredentialsRefused, naming the file, when there is none."""
        if self.changed() or self._token is None:
            self._signature, self._token = signature_of(self._path), None
            self._token = _read(self._path)
        return self._token


def claims_of(text: str) -> dict[str, Any]:
    """What a token says of itself. Raises jwt.InvalidTokenError when it is none."""
    claims: dict[str, Any] = jwt.decode(text, options={"verify_signature": False})
    return claims


def _read(path: Path) -> Token:
    try:
        text = path.read_text(encoding="ascii").strip()
    except FileNotFoundError:
        raise CredentialsRefused(f"there is no token: {path} does not exist") from None
    except OSError as error:
        raise CredentialsRefused(f"{path} can't be read: {error.strerror}") from None
    except UnicodeDecodeError:
        text = ""
    try:
        claims = claims_of(text)
        expires_at, issued_at = (
            datetime.fromtimestamp(claims[name], UTC) if name in claims else None for name in ("exp", "iat")
        )
    except (jwt.InvalidTokenError, TypeError, ValueError, OverflowError, OSError):
        raise CredentialsRefused(f"{path} does not hold a token") from None
    subject = claims.get("sub")
    return Token(text, expires_at, subject if isinstance(subject, str) else None, issued_at)
