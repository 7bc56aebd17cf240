"""A device's side of identity, played by hand: a key, and what is signed with it."""

from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import httpx
import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from endpoints import Endpoints

from server import fleet
from wire.identity import (
    ALGORITHM,
    EnrolRequest,
    NonceAnswer,
    TokenAnswer,
    TokenError,
    TokenRequest,
    assertion_claims,
    key_text,
)

FORM = {"Content-Type": "application/x-www-form-urlencoded"}


@dataclass
class Pi:
    """A device with a key of its own, speaking to one server."""

    client: httpx.Client
    device_id: str = "pi-05"
    key: Ed25519PrivateKey = field(default_factory=Ed25519PrivateKey.generate)

    @property
    def public_key(self) -> str:
        """As it travels."""
        return key_text(self.key.public_key().public_bytes_raw())

    def nonce(self) -> NonceAnswer:
        """A fresh one."""
        return NonceAnswer.parse(self.client.post("/oauth/nonce").content)

    def sign(self, subject: str, nonce: NonceAnswer | None = None, **changed: Any) -> str:
        """An assertion; None removes a claim."""
        claims = assertion_claims(subject, nonce or self.nonce()) | changed
        given = {name: value for name, value in claims.items() if value is not None}
        return jwt.encode(given, self.key, algorithm=ALGORITHM)

    def ask_to_enrol(self, code: str, device_id: str | None = None, assertion: str | None = None) -> httpx.Response:
        """Post a code and this key."""
        asked = EnrolRequest(code, self.public_key, assertion or self.sign(self.public_key), device_id)
        return self.client.post("/enrol", content=asked.to_json())

    def enrol(self, code: str) -> str:
        """Enrol, and return the first token."""
        answer = self.ask_to_enrol(code)
        assert answer.status_code == 200, answer.text
        return TokenAnswer.parse(answer.content).access_token

    def ask_to_renew(self, assertion: str | None = None) -> httpx.Response:
        """Post an assertion."""
        form = TokenRequest(assertion or self.sign(self.device_id)).to_form()
        return self.client.post("/oauth/token", content=form, headers=FORM)

    def renew(self) -> str:
        """Renew, and return the token."""
        answer = self.ask_to_renew()
        assert answer.status_code == 200, answer.text
        return TokenAnswer.parse(answer.content).access_token


def code_for(endpoints: Endpoints, device_id: str = "pi-05", **life: float) -> str:
    """A code as an operator gets it, by the server's clock."""
    with endpoints.pool.connection() as connection:
        code, _ = fleet.new_code(connection, device_id, timedelta(**(life or {"days": 2})), endpoints.clock.at)
        return code


def enrolled(endpoints: Endpoints, device_id: str = "pi-05") -> tuple[Pi, str]:
    """A device that was let in, and its first token."""
    pi = Pi(endpoints.client, device_id)
    return pi, pi.enrol(code_for(endpoints, device_id))


def error_of(answer: httpx.Response) -> tuple[int, str]:
    """Status and RFC 6749 word of a refusal, which must have its shape."""
    refused = TokenError.parse(answer.content)
    assert refused.error_description
    assert answer.headers["Cache-Control"] == "no-store"
    return answer.status_code, refused.error
