"""Enrols a device without screen or keyboard, by a file that somebody put on the boot partition of its card.

    scout-agent.toml    server = "…", code = "…", and whatever sections the config is to have
    scout-agent.txt     what became of it, for whoever looks at the card on a PC; no code, no token

May be relied on
- The file goes only once key, token and config are durable on the device's own file system. That partition is FAT: it
  has no permissions, and nothing on it is whole after a power cut. So each step may be cut and is repeated at the next
  boot; a device that was enrolled by this code needs no server to know it.
- What passes by itself is tried again for ever: no network, no clock, a server that is down, a captive portal.
- A refused code, or a file that can't be used, is said in scout-agent.txt and kept, for somebody to mend.
"""

import hashlib
import os
import tomllib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import structlog

from agent.clock import Clock
from agent.config import Config, load
from agent.device_key import read_key
from agent.enrolling import enrol_device
from agent.errors import CredentialsRefused, DeliveryFault, LocalFault, Misconfigured, ScoutAgentError, Wait
from agent.files import sync_folder
from agent.first_config import Sections
from wire.identity import plain_code
from wire.record import format_instant

CARDS = (Path("/boot/firmware/scout-agent.toml"), Path("/boot/scout-agent.toml"))
"""Where the boot partition is: on Raspberry Pi OS since bookworm, and before."""

BYTES_MAX = 64 * 1024
WAIT_S, WAIT_MAX_S = 5.0, 60.0
"""Whoever plugs the network in at last looks at the screen of the back office a minute later."""

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Card:
    """What the file says."""

    server: str
    code: str = field(repr=False)
    sections: Sections


def provision(
    file: Path,
    config_file: Path,
    *,
    clock: Clock,
    client_of: Callable[[Config], httpx.Client],
    start_service: Callable[[Path], bool],
) -> bool:
    """Enrol this device, however long that takes; say whether it is enrolled. False: somebody must mend the file."""
    try:
        card = read_card(file)
        device_id = enrolled_by(config_file, card.code) or _enrol(file, card, config_file, clock, client_of)
    except ScoutAgentError as problem:
        _tell(file, clock, f"Not enrolled: {problem}\nMend {file.name}, or ask for another code, and start the device.")
        return False
    _tell(file, clock, f"This device is {device_id}. {file.name} was used and removed.")
    _remove(file)
    start_service(config_file)
    return True


def read_card(file: Path) -> Card:
    """Read the file. Raises Misconfigured, saying what is wrong with it."""
    try:
        with file.open("rb") as opened:
            text = opened.read(BYTES_MAX).decode("utf-8-sig")  # an editor's mark at the beginning is no harm
        table = tomllib.loads(text)
    except OSError as error:
        raise Misconfigured(f"{file.name} can't be read: {error.strerror}") from None
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise Misconfigured(f"{file.name} is not valid TOML in UTF-8: {error}") from None
    server, code = table.pop("server", None), table.pop("code", None)
    if not (isinstance(server, str) and isinstance(code, str)):
        raise Misconfigured(f'{file.name} must say server = "https://…" and code = "…", before any [section]')
    for name, keys in table.items():
        if not isinstance(keys, dict) or not all(isinstance(key, str | int | float) for key in keys.values()):
            raise Misconfigured(f"{file.name}: {name} must be a section of the config, such as [folder]")
    return Card(server, code, table)


def enrolled_by(config_file: Path, code: str) -> str | None:
    """Who this device is, if this very code made it so, all that it takes is there, and only the card is left."""
    try:
        config = load(config_file)
        key = read_key(config.device_key_file)
    except (Misconfigured, CredentialsRefused):
        return None
    code_sha256 = hashlib.sha256((plain_code(code) or "").encode()).hexdigest()
    is_done = key is not None and key.code_sha256 == code_sha256 and config.token_file.exists()
    return config.device.id if is_done else None


def _enrol(file: Path, card: Card, config_file: Path, clock: Clock, client_of: Callable[[Config], httpx.Client]) -> str:
    """Try until the server has answered for good. Raises ScoutAgentError when the answer is no."""
    wait_s = WAIT_S
    while True:
        try:
            return enrol_device(
                config_file, card.server, card.code, clock=clock, client_of=client_of, sections=card.sections
            ).device_id
        except (DeliveryFault, LocalFault) as fault:
            _tell(file, clock, f"Not enrolled yet: {fault}\nThe device tries again by itself.")
            asked_s = (fault.retry_after_s or 0.0) if isinstance(fault, Wait) else 0.0
        clock.sleep(max(wait_s, asked_s))
        wait_s = min(2 * wait_s, WAIT_MAX_S)


def _tell(file: Path, clock: Clock, text: str) -> None:
    """Leave word beside the file, unless it stands there already: a card wears out by writing."""
    log.info("provisioning", said=text)
    told = file.with_suffix(".txt")
    try:
        if told.exists() and told.read_text(encoding="utf-8", errors="replace").endswith(f"\n{text}\n"):
            return
        with told.open("w", encoding="utf-8", newline="\r\n") as opened:
            opened.write(f"{format_instant(clock.now())}\n{text}\n")
            opened.flush()
            os.fsync(opened.fileno())
    except OSError as error:
        log.warning("boot_partition_not_written", path=str(told), reason=error.strerror)


def _remove(file: Path) -> None:
    """Take the code from the card."""
    try:
        file.unlink(missing_ok=True)
        sync_folder(os.fsencode(file.parent))
    except OSError as error:
        log.warning("boot_partition_not_written", path=str(file), reason=error.strerror)
