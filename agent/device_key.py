"""The device's Ed25519 key, by which it is known: made at enrolment, kept beside the spool, and signing assertions.

    device-key       in force; 0600
    device-key.new   made, and perhaps known to the server already, whose answer has not come yet

May be relied on: a key is on the disk before the server hears of it, so that an enrolment cut anywhere can be repeated
with the same code. Nothing here prints a key. What signs loads `cryptography`, which the resident agent never does.
"""

import base64
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import jwt
import msgspec

from agent.errors import CredentialsRefused
from agent.files import sync_folder, write_safely
from wire.identity import ALGORITHM, NonceAnswer, assertion_claims, key_text

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

KEY_MODE = 0o600
Owner = tuple[int, int]


@dataclass(frozen=True, slots=True)
class DeviceKey:
    """A private key, the device that it makes of this machine, and the code by which it came in."""

    private_key: str = field(repr=False)  # 32 bytes in base64url
    device_id: str | None  # None until the server has said
    code_sha256: str  # hex; a repeat with the same code takes the same key

    @property
    def public_key(self) -> str:
        """The half that the server keeps, as it travels."""
        return key_text(self._loaded().public_key().public_bytes_raw())

    def sign(self, subject: str, nonce: NonceAnswer) -> str:
        """An assertion that this key is held by who speaks for `subject`."""
        return jwt.encode(assertion_claims(subject, nonce), self._loaded(), algorithm=ALGORITHM)

    def _loaded(self) -> "Ed25519PrivateKey":
        from cryptography.hazmat.primitives.asymmetric import ed25519  # noqa: PLC0415  (see the module's promise)

        return ed25519.Ed25519PrivateKey.from_private_bytes(base64.urlsafe_b64decode(self.private_key))


def new_key(device_id: str | None, code_sha256: str) -> DeviceKey:
    """Make a key."""
    from cryptography.hazmat.primitives.asymmetric import ed25519  # noqa: PLC0415  (see the module's promise)

    raw = ed25519.Ed25519PrivateKey.generate().private_bytes_raw()
    return DeviceKey(base64.urlsafe_b64encode(raw).decode(), device_id, code_sha256)


def pending_file(file: Path) -> Path:
    """Where a key lies that is not in force yet."""
    return file.with_name(f"{file.name}.new")


def read_key(file: Path) -> DeviceKey | None:
    """The key in a file; None when there is no such file. Raises CredentialsRefused when there is something else."""
    try:
        key = msgspec.json.decode(file.read_bytes(), type=DeviceKey)
        raw = base64.b64decode(key.private_key, altchars=b"-_", validate=True)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise CredentialsRefused(f"{file} can't be read: {error.strerror}") from None
    except (msgspec.MsgspecError, ValueError):
        raw = b""
    if len(raw) != 32:
        raise CredentialsRefused(f"{file} does not hold a device's key")
    return key


def write_key(file: Path, key: DeviceKey, owner: Owner | None = None) -> None:
    """Keep a key, durably. Raises OSError."""
    write_safely(os.fsencode(file), msgspec.json.encode(key), KEY_MODE, owner)


def put_in_force(file: Path, key: DeviceKey, owner: Owner | None = None) -> None:
    """Make a key the device's own; the pending one is gone then. Raises OSError."""
    write_key(file, key, owner)
    pending_file(file).unlink(missing_ok=True)
    sync_folder(os.fsencode(file.parent))
