"""How a device comes by its tokens: enrolment with a one-time code, then renewal by its own key.

    POST /oauth/nonce   nothing                          -> NonceAnswer
    POST /enrol         EnrolRequest, JSON               -> TokenAnswer
    POST /oauth/token   TokenRequest, a form             -> TokenAnswer
                        anything refused                 -> TokenError, 400, 401, 429 or 503

The last two prove possession of an Ed25519 key by an assertion: a JWT signed with it (RFC 7523, private_key_jwt). Its
`jti` is a nonce of the server's and its `exp` the nonce's, both from the server, so that the device's clock, which may
be wrong by years, has no part in it. `iss` and `sub` are the device's id; at enrolment, where a device may not know
its id yet, its public key.

May be relied on: `parse` accepts nothing but these shapes, so that a captive portal's page is no token; no repr shows
a code, an assertion or a token.
"""

import base64
import binascii
import re
from dataclasses import dataclass, field
from typing import Annotated, TypeVar
from urllib.parse import parse_qsl, urlencode

import msgspec

ALGORITHM = "EdDSA"
AUDIENCE = "scout-edge"
"""Not the token endpoint's address, which a proxy changes: the nonce already binds an assertion to one server."""

BEARER = "Bearer"
GRANT_TYPE = "client_credentials"
ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"

INVALID_REQUEST = "invalid_request"
INVALID_CLIENT = "invalid_client"  # this assertion proves nothing here, or the device may not come in
INVALID_GRANT = "invalid_grant"  # this code opens nothing
UNSUPPORTED_GRANT_TYPE = "unsupported_grant_type"
TEMPORARILY_UNAVAILABLE = "temporarily_unavailable"  # also: too many wrong codes, an operator is waited for

PUBLIC_KEY_BYTES = 32
CODE_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
"""Crockford's base32: without I, L, O and U, which are misread."""

CODE_SYMBOLS = 16
"""80 bits: not to be guessed, neither one by one at the server nor from its stored sha256."""

_MISREAD = str.maketrans({"O": "0", "I": "1", "L": "1", "-": None, " ": None})
_CODE = re.compile(f"[{CODE_ALPHABET}]{{{CODE_SYMBOLS}}}")

T = TypeVar("T")


class NotAnAnswer(ValueError):
    """This is no answer of the token endpoint's."""


class NotARequest(ValueError):
    """This is no request that the token endpoint understands."""


@dataclass(frozen=True, slots=True)
class NonceAnswer:
    """A nonce for one assertion, and the second, by the server's clock, until which it is good."""

    nonce: Annotated[str, msgspec.Meta(min_length=1, max_length=500)]
    expires_at: int

    def to_json(self) -> bytes:
        """The answer as it travels."""
        return msgspec.json.encode(self)

    @classmethod
    def parse(cls, body: bytes) -> "NonceAnswer":
        """Read an answer. Raises NotAnAnswer."""
        return _answer(body, cls)


@dataclass(frozen=True, slots=True)
class EnrolRequest:
    """A device asks to be let in. `device_id` where it has one already: the code must be for that device."""

    code: Annotated[str, msgspec.Meta(max_length=100)] = field(repr=False)
    public_key: Annotated[str, msgspec.Meta(max_length=100)]
    assertion: Annotated[str, msgspec.Meta(max_length=4000)] = field(repr=False)
    device_id: Annotated[str, msgspec.Meta(max_length=100)] | None = None

    def to_json(self) -> bytes:
        """The request as it travels."""
        return msgspec.json.encode(self)

    @classmethod
    def parse(cls, body: bytes) -> "EnrolRequest":
        """Read a request. Raises NotARequest."""
        try:
            return msgspec.json.decode(body, type=cls)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            raise NotARequest("an enrolment is a JSON object with code, public_key and assertion") from None


@dataclass(frozen=True, slots=True)
class TokenRequest:
    """A device asks for a token with its key (RFC 6749 section 4.4.2, RFC 7523 section 2.2)."""

    assertion: str = field(repr=False)

    def to_form(self) -> bytes:
        """The request as it travels."""
        return urlencode(
            {
                "grant_type": GRANT_TYPE,
                "client_assertion_type": ASSERTION_TYPE,
                "client_assertion": self.assertion,
            }
        ).encode()

    @classmethod
    def parse(cls, body: bytes) -> "TokenRequest":
        """Read a form. Raises NotARequest, its message one of the errors of RFC 6749 where it names one."""
        try:
            pairs = parse_qsl(body.decode("ascii"), strict_parsing=True, max_num_fields=20)
        except ValueError:
            raise NotARequest(INVALID_REQUEST) from None
        fields = dict(pairs)
        if len(fields) < len(pairs):
            raise NotARequest(INVALID_REQUEST)  # RFC 6749 section 3.2: no parameter more than once
        if fields.get("grant_type", GRANT_TYPE) != GRANT_TYPE:
            raise NotARequest(UNSUPPORTED_GRANT_TYPE)
        if "grant_type" not in fields or fields.get("client_assertion_type") != ASSERTION_TYPE:
            raise NotARequest(INVALID_REQUEST)
        return cls(fields.get("client_assertion", ""))


@dataclass(frozen=True, slots=True)
class TokenAnswer:
    """A token (RFC 6749 section 5.1), and whose it is."""

    access_token: str = field(repr=False)
    token_type: str
    expires_in: int
    device_id: str

    def to_json(self) -> bytes:
        """The answer as it travels."""
        return msgspec.json.encode(self)

    @classmethod
    def parse(cls, body: bytes) -> "TokenAnswer":
        """Read an answer. Raises NotAnAnswer."""
        answer = _answer(body, cls)
        if answer.token_type != BEARER or not answer.access_token.isascii():
            raise NotAnAnswer("the answer holds no bearer token")
        return answer


@dataclass(frozen=True, slots=True)
class TokenError:
    """Why there is none (RFC 6749 section 5.2)."""

    error: str
    error_description: str = ""

    def to_json(self) -> bytes:
        """The answer as it travels."""
        return msgspec.json.encode(self)

    @classmethod
    def parse(cls, body: bytes) -> "TokenError":
        """Read an answer. Raises NotAnAnswer."""
        return _answer(body, cls)


def assertion_claims(subject: str, nonce: NonceAnswer) -> dict[str, object]:
    """What a device signs to prove that it holds its key."""
    return {"iss": subject, "sub": subject, "aud": AUDIENCE, "exp": nonce.expires_at, "jti": nonce.nonce}


def shown_code(symbols: str) -> str:
    """A code as people read it: in groups of four."""
    return "-".join(symbols[at : at + 4] for at in range(0, len(symbols), 4))


def plain_code(typed: str) -> str | None:
    """The code that somebody typed, whatever its case, dashes and misread letters; None when it can't be one."""
    code = typed.strip().upper().translate(_MISREAD)
    return code if _CODE.fullmatch(code) else None


def key_text(public_key: bytes) -> str:
    """A public key as it travels: base64url without padding, as in RFC 8037."""
    return base64.urlsafe_b64encode(public_key).rstrip(b"=").decode()


def key_of(text: str) -> bytes | None:
    """The 32 bytes of a public key; None when this is none, or another way to write one."""
    try:
        key = base64.b64decode(text + "=", altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        return None
    return key if len(key) == PUBLIC_KEY_BYTES and key_text(key) == text else None


def _answer(body: bytes, shape: type[T]) -> T:
    try:
        return msgspec.json.decode(body, type=shape)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise NotAnAnswer("the answer is not in the shape of a token endpoint's") from None
