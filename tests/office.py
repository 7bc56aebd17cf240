"""The back office as an agent meets it: codes, keys, nonces and tokens, behind a fake server's answers."""

import json
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import jwt
from agent_kit import DEVICE, SERVER_TIME_AT_ZERO, FakeServer, a_token
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from wire.identity import (
    ALGORITHM,
    AUDIENCE,
    EnrolRequest,
    NonceAnswer,
    TokenAnswer,
    TokenError,
    TokenRequest,
    key_of,
    plain_code,
)

CODE = "7K3D-9Q2M-XB4F-0HTW"


@dataclass
class Office:
    """Takes one code, remembers the key that used it, and answers each nonce once. `answer` goes to a FakeServer."""

    device: str = DEVICE
    now: datetime = SERVER_TIME_AT_ZERO
    code: str = CODE
    key: bytes | None = None
    is_revoked: bool = False
    nonces: set[str] = field(default_factory=set)
    issued: list[str] = field(default_factory=list)
    asked: list[tuple[str, bytes]] = field(default_factory=list)

    def answer(self, path: str, body: bytes) -> tuple[int, bytes] | None:
        """What is said at this path; None elsewhere."""
        answers = {"/oauth/nonce": self._nonce, "/oauth/token": self._token, "/enrol": self._enrol}
        if path not in answers:
            return None
        self.asked.append((path, body))
        return answers[path](body)

    def _nonce(self, _: bytes) -> tuple[int, bytes]:
        nonce = NonceAnswer(f"nonce-{len(self.asked)}", int((self.now + timedelta(minutes=5)).timestamp()))
        self.nonces.add(nonce.nonce)
        return 200, nonce.to_json()

    def _token(self, body: bytes) -> tuple[int, bytes]:
        if self.is_revoked or self.key is None:
            return 401, TokenError("invalid_client", "this device is revoked: ask the back office").to_json()
        try:
            self._prove(TokenRequest.parse(body).assertion, self.key, self.device)
        except jwt.InvalidSignatureError:
            return 401, TokenError("invalid_client", "this assertion is not accepted").to_json()
        return self._issue()

    def _enrol(self, body: bytes) -> tuple[int, bytes]:
        asked = EnrolRequest.parse(body)
        key = key_of(asked.public_key)
        assert key
        self._prove(asked.assertion, key, asked.public_key)
        if asked.code != plain_code(self.code) or self.key not in (None, key):
            return 400, TokenError("invalid_grant", "this code is not, or no longer, good").to_json()
        if asked.device_id not in (None, self.device):
            return 400, TokenError("invalid_grant", f"this code is for {self.device}: it was not used up").to_json()
        self.key = key
        return self._issue()

    def _issue(self) -> tuple[int, bytes]:
        issued_at = int(self.now.timestamp())
        expires_at = self.now + timedelta(days=30)
        token = a_token(expires_at, sub=self.device, iat=issued_at, jti=str(len(self.issued)))
        self.issued.append(token)
        return 200, TokenAnswer(token, "Bearer", 30 * 86_400, self.device).to_json()

    def _prove(self, assertion: str, key: bytes, subject: str) -> None:
        """Check an assertion as the server does, but for the clock."""
        claims = jwt.decode(
            assertion,
            Ed25519PublicKey.from_public_bytes(key),
            algorithms=[ALGORITHM],
            audience=AUDIENCE,
            options={"verify_exp": False},
        )
        assert (claims["iss"], claims["sub"]) == (subject, subject)
        self.nonces.remove(claims["jti"])

    def refuse_other_tokens(self, server: FakeServer) -> None:
        """From now on only tokens issued here open anything."""

        def answer(path: str, body: bytes) -> tuple[int, bytes] | None:
            said = self.answer(path, body)
            if said is not None:
                return said
            token = server.requests[-1][1].get("Authorization", "").removeprefix("Bearer ")
            return None if token in self.issued else (401, json.dumps({"message": "jwt expired"}).encode())

        server.answer = answer
