"""The conversation by which this device comes by its tokens: once with a code, and from then on with its key.

May be relied on
- The device's clock has no part in it: what is signed is a nonce of the server's, until the server's own time.
- Key and token are on the disk, whole, or as before; the token last, so that a running agent finds both.
- Repeating an enrolment with its code is safe, however it was cut: it goes on with the same key.
- An answer in another shape, such as a captive portal's page, changes nothing.
- No fault names a code, a key or a token.

Loads `cryptography` when it signs: the resident agent has agent/renewing.py do that, in a process of its own.
"""

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

import httpx

from agent.clock import Clock
from agent.config import Config
from agent.device_key import DeviceKey, Owner, new_key, pending_file, put_in_force, read_key, write_key
from agent.errors import CredentialsRefused, DeliveryFault, LocalFault, OperatorNeeded, Wait
from agent.files import write_safely
from agent.token import claims_of
from agent.transport import Flow, post
from agent.upload import fault_of, retry_after_s
from wire.identity import (
    INVALID_CLIENT,
    INVALID_GRANT,
    TEMPORARILY_UNAVAILABLE,
    EnrolRequest,
    NonceAnswer,
    NotAnAnswer,
    TokenAnswer,
    TokenError,
    TokenRequest,
    plain_code,
)

TOKEN_MODE = 0o600
_FORM = {"Content-Type": "application/x-www-form-urlencoded"}
_JSON = {"Content-Type": "application/json"}

T = TypeVar("T")


def renew(config: Config, client: httpx.Client, clock: Clock) -> None:
    """Replace the token. Raises DeliveryFault, or LocalFault where it can't be kept; the old one stays.

    Where the server knows the key of an enrolment that was cut short, that one is put in force.
    """
    file = config.device_key_file
    key = read_key(file)
    if key is None:
        raise CredentialsRefused(f"this device is not enrolled: {file} does not exist")
    if key.device_id != config.device.id:
        raise CredentialsRefused(f"the key is {key.device_id}'s, but this device is {config.device.id}")
    speaker = _Speaker(config, client, clock)
    try:
        answer = speaker.renewed(key, config)
    except CredentialsRefused as refused:
        pending = read_key(pending_file(file))
        if pending is None:
            raise
        try:
            answer = speaker.renewed(pending, config)
        except CredentialsRefused:
            raise refused from None
        _put_in_force(file, replace(pending, device_id=config.device.id), None)
    _keep_token(config.token_file, answer.access_token, None)


@dataclass(frozen=True, slots=True)
class Welcome:
    """What a server answered to a code: a token, and who this device is with the key that asked."""

    key: DeviceKey
    token: str = field(repr=False)

    @property
    def device_id(self) -> str:
        """Who this device is."""
        assert self.key.device_id
        return self.key.device_id


def enrol(
    config: Config, client: httpx.Client, clock: Clock, *, code: str, device_id: str | None, owner: Owner | None
) -> Welcome:
    """Have this device let in by a code.

    `device_id`: who this device is already. `owner`: whose the pending key is to be. Raises DeliveryFault; LocalFault
    when the key can't be kept: then nothing was sent.
    """
    plain = plain_code(code)
    if plain is None:
        raise CredentialsRefused("this is no code: it has 16 letters and digits, such as 7K3D-9Q2M-XB4F-0HTW")
    key = _key_for(config.device_key_file, plain, device_id, owner)
    speaker = _Speaker(config, client, clock)
    asked = EnrolRequest(plain, key.public_key, key.sign(key.public_key, speaker.nonce()), device_id)
    answer = speaker.token(config.enrol_url, asked.to_json(), _JSON)
    _refuse_anothers(answer, device_id or answer.device_id)
    return Welcome(replace(key, device_id=answer.device_id), answer.access_token)


def keep(config: Config, welcome: Welcome, owner: Owner | None) -> None:
    """Put key and token in force, as `owner`'s files. Raises LocalFault."""
    _put_in_force(config.device_key_file, welcome.key, owner)
    _keep_token(config.token_file, welcome.token, owner)


def ask_nonce(config: Config, client: httpx.Client, clock: Clock) -> None:
    """Ask for something to sign and leave it: shows whether the token endpoint is there. Raises DeliveryFault."""
    _Speaker(config, client, clock).nonce()


def _key_for(file: Path, code: str, device_id: str | None, owner: Owner | None) -> DeviceKey:
    """The key that this code was or will be used with: kept before anybody hears of it."""
    code_sha256 = hashlib.sha256(code.encode()).hexdigest()
    for known in (file, pending_file(file)):
        try:
            key = read_key(known)
        except CredentialsRefused:
            continue  # damaged or closed: a new one takes its place
        if key is not None and key.code_sha256 == code_sha256:
            return key
    key = new_key(device_id, code_sha256)
    try:
        write_key(pending_file(file), key, owner)
    except OSError as error:
        raise LocalFault(f"{pending_file(file)}: {error.strerror}. Nothing was sent; run it with sudo.") from None
    return key


def _refuse_anothers(answer: TokenAnswer, device_id: str) -> None:
    """A token that names somebody else would be refused with every delivery."""
    try:
        subject = claims_of(answer.access_token).get("sub")
    except ValueError:
        subject = None
    if answer.device_id != device_id or subject != device_id:
        raise OperatorNeeded(f"the server's answer holds no token of {device_id}'s")


def _put_in_force(file: Path, key: DeviceKey, owner: Owner | None) -> None:
    try:
        put_in_force(file, key, owner)
    except OSError as error:
        raise LocalFault(f"{file}: {error.strerror}") from None


def _keep_token(file: Path, token: str, owner: Owner | None) -> None:
    try:
        write_safely(os.fsencode(file), token.encode() + b"\n", TOKEN_MODE, owner)
    except OSError as error:
        raise LocalFault(f"{file}: {error.strerror}") from None


class _Speaker:
    """Posts to the token endpoint and sorts what it answers."""

    def __init__(self, config: Config, client: httpx.Client, clock: Clock) -> None:
        self._nonce_url = config.nonce_url
        self._api_key = config.server.api_key
        self._client = client
        self._flow = Flow(clock=clock)

    def nonce(self) -> NonceAnswer:
        return self._ask(self._nonce_url, b"", _JSON, NonceAnswer.parse)

    def renewed(self, key: DeviceKey, config: Config) -> TokenAnswer:
        """This device's next token, by one of its keys."""
        form = TokenRequest(key.sign(config.device.id, self.nonce())).to_form()
        answer = self.token(config.token_url, form, _FORM)
        _refuse_anothers(answer, config.device.id)
        return answer

    def token(self, url: str, content: bytes, headers: dict[str, str]) -> TokenAnswer:
        return self._ask(url, content, headers, TokenAnswer.parse)

    def _ask(self, url: str, content: bytes, headers: dict[str, str], parse: Callable[[bytes], T]) -> T:
        gateway = {"apikey": self._api_key} if self._api_key else {}
        response = post(self._client, url, content, headers | gateway, self._flow)
        if response.status_code != 200:
            raise _fault(response, url)
        try:
            return parse(response.content)
        except NotAnAnswer as error:
            raise OperatorNeeded(f"{url} answered 200, but {error}: a captive portal, or another server") from None


def _fault(response: httpx.Response, url: str) -> DeliveryFault:
    """What a refusal means: RFC 6749's own words, or else what any server says."""
    try:
        refused = TokenError.parse(response.content)
    except NotAnAnswer:
        return fault_of(response, url)
    said = f"{url} answered: {refused.error_description or refused.error}"
    if refused.error in (INVALID_CLIENT, INVALID_GRANT):
        return CredentialsRefused(said)
    if refused.error == TEMPORARILY_UNAVAILABLE or response.status_code >= 500:
        return Wait(said, retry_after_s=retry_after_s(response), answered=True)
    return OperatorNeeded(said)
