"""Who is let in, against a model that a person can read: whatever operators, devices and thieves do, and how fast.

The model knows nothing of seconds, rows or JWTs. It says of each token and key whether it should count now.
"""

from dataclasses import dataclass, field
from datetime import datetime, timedelta

import jwt
import psycopg
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from endpoints import NOW, SECRET
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from server import fleet, identity, tokens
from server.nonces import new_nonce
from wire.identity import ALGORITHM, EnrolRequest, TokenRequest, assertion_claims, key_text

DEVICES = ("pi-05", "pi-06")
DEEDS = (
    "code",
    "enrol",
    "enrol with an old code",
    "renew",
    "renew with an old key",
    "revoke",
    "restore",
    "rotate",
    "end",
    "token",
)
PASSED_MS = st.sampled_from((0, 0, 0, 0, 300, 1100))
"""Mostly nothing: within a second is where tokens can't tell earlier from later."""


@dataclass
class Known:
    """What should be so of one device."""

    is_revoked: bool = False
    key: Ed25519PrivateKey | None = None
    code: str | None = None
    old_keys: list[Ed25519PrivateKey] = field(default_factory=list)
    old_codes: list[str] = field(default_factory=list)
    counting: set[str] = field(default_factory=set)
    ended: set[str] = field(default_factory=set)

    def end_tokens(self) -> None:
        """None that was issued so far counts any more."""
        self.ended |= self.counting
        self.counting = set()

    def void_code(self) -> None:
        """The code, if there is one, is good no longer."""
        if self.code is not None:
            self.old_codes.append(self.code)
        self.code = None


@dataclass
class World:
    """The real thing and the model, each told of every deed."""

    connection: psycopg.Connection
    now: datetime = NOW
    devices: dict[str, Known] = field(default_factory=lambda: {name: Known() for name in DEVICES})

    def do(self, deed: str, name: str) -> None:
        """Do it in both, and compare whether it was allowed."""
        self._device_does(deed, name, self.devices[name])
        self._operator_does(deed, name, self.devices[name])

    def _device_does(self, deed: str, name: str, known: Known) -> None:
        match deed:
            case "enrol":
                if known.code is None:
                    known.code, _ = fleet.new_code(self.connection, name, timedelta(days=2), self.now)
                self._enrol(name, known)
            case "enrol with an old code" if known.old_codes:
                assert self._asked_to_enrol(Ed25519PrivateKey.generate(), known.old_codes[-1]) is None
            case "renew" if known.key is not None:
                token = self._asked_to_renew(known.key, name)
                assert (token is None) == known.is_revoked
                known.counting |= {token} if token else set()
            case "renew with an old key" if known.old_keys:
                assert self._asked_to_renew(known.old_keys[-1], name) is None

    def _operator_does(self, deed: str, name: str, known: Known) -> None:
        match deed:
            case "code":
                known.void_code()
                known.code, _ = fleet.new_code(self.connection, name, timedelta(days=2), self.now)
            case "revoke" if self._is_there(name):
                fleet.revoke(self.connection, name, self.now)
                known.void_code()
                known.is_revoked = True
            case "restore" if self._is_there(name):
                fleet.restore(self.connection, name, self.now)
                known.is_revoked = False
            case "rotate" if self._is_there(name):
                fleet.rotate(self.connection, [name], at_once=True, now=self.now)
                known.end_tokens()
            case "end" if known.counting:
                token = min(known.counting)
                fleet.revoke_token(self.connection, tokens.read(token, SECRET, self.now).jti or "", self.now)
                known.counting.remove(token)
                known.ended.add(token)
            case "token" if not known.is_revoked:
                tokens.add_device(self.connection, name)
                known.counting.add(
                    tokens.issue(self.connection, SECRET, name, tokens.EDGE_UPLOADER, days=30, now=self.now)
                )

    def check(self) -> None:
        """Every token that was ever issued counts or not, as the model says."""
        for known in self.devices.values():
            wanted = set() if known.is_revoked else known.counting
            assert {token for token in known.counting | known.ended if self._counts(token)} == wanted

    def _enrol(self, name: str, known: Known) -> None:
        assert known.code
        key = Ed25519PrivateKey.generate()
        token = self._asked_to_enrol(key, known.code)
        assert token is not None
        known.end_tokens()
        known.old_keys += [known.key] if known.key else []
        known.key, known.is_revoked = key, False
        known.counting.add(token)
        known.void_code()
        assert tokens.read(token, SECRET, self.now).subject == name

    def _asked_to_enrol(self, key: Ed25519PrivateKey, code: str) -> str | None:
        public_key = key_text(key.public_key().public_bytes_raw())
        asked = EnrolRequest(code, public_key, self._signed(key, public_key))
        try:
            return identity.enrol(self.connection, asked, SECRET, self.now).access_token
        except identity.Refused:
            return None

    def _asked_to_renew(self, key: Ed25519PrivateKey, name: str) -> str | None:
        try:
            return identity.renew(self.connection, TokenRequest(self._signed(key, name)), SECRET, self.now).access_token
        except identity.Refused:
            return None

    def _signed(self, key: Ed25519PrivateKey, subject: str) -> str:
        return jwt.encode(assertion_claims(subject, new_nonce(SECRET, self.now)), key, algorithm=ALGORITHM)

    def _counts(self, token: str) -> bool:
        try:
            tokens.verify(token, SECRET, self.connection, self.now)
        except tokens.TokenRefused:
            return False
        return True

    def _is_there(self, name: str) -> bool:
        return bool(self.connection.execute("select from scout_edge.devices where device_id = %s", [name]).fetchall())


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.sampled_from(DEEDS), st.sampled_from(DEVICES), PASSED_MS), min_size=25, max_size=60))
def test_whatever_is_done_and_how_fast_exactly_who_should_be_is_let_in(
    connection: psycopg.Connection, deeds: list[tuple[str, str, int]]
) -> None:
    """Also when all of it happens within one second, which is all that a token tells of time."""
    with connection.transaction(force_rollback=True):
        world = World(connection)
        for deed, name, passed_ms in deeds:
            world.do(deed, name)
            world.check()
            world.now += timedelta(milliseconds=passed_ms)
            world.check()
