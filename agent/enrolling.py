"""`scout-agent enrol`, step by step: one command makes of a new machine the device that a code names.

May be relied on
- A device that has a config or a spool keeps its id, spool and numbers: a code for another device is refused before it
  is used up.
- Without a config, one is written: device and server as they are now known, the till's folder at the usual place, and
  whatever sections were given. A config that is there stays as it is.
- Whoever runs it, what it leaves is the agent's own: by root, the files are given to the account of the spool's folder.
- Cut at any moment, it is repeated with the same code; done, repeating it changes nothing but the token.
"""

import os
import pwd
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import httpx

from agent import config as configuration
from agent.clock import Clock
from agent.config import Config
from agent.device_key import Owner
from agent.errors import CredentialsRefused, LocalFault, Misconfigured, ScoutAgentError, Wait
from agent.files import write_safely
from agent.first_config import Sections, first_config
from agent.identity import enrol, keep
from agent.spool_view import view

SPOOL_FOLDER = Path(configuration.SpoolSection().directory)
ACCOUNT = "scout-agent"
CONFIG_MODE, FOLDER_MODE = 0o640, 0o750
UNKNOWN = "not-known-yet"
NOTHING_GIVEN: Sections = {}


@dataclass(frozen=True, slots=True)
class Enrolled:
    """What an enrolment made."""

    device_id: str
    config_file: Path
    is_config_new: bool
    till_folder: str
    spool_folder: Path


def enrol_device(
    config_file: Path,
    server: str | None,
    code: str,
    *,
    clock: Clock,
    client_of: Callable[[Config], httpx.Client],
    spool_folder: Path = SPOOL_FOLDER,
    sections: Sections = NOTHING_GIVEN,
) -> Enrolled:
    """Enrol this machine. Raises Misconfigured, LocalFault or DeliveryFault, each saying what to do.

    `spool_folder`: where the spool is to lie where no config says so. `sections`: what else a new config is to say.
    """
    existing = _existing(config_file, server)

    def text_for(device_id: str) -> str:
        return first_config(device_id, server or "", str(spool_folder), sections)

    config = existing or configuration.read(text_for(UNKNOWN), config_file)
    folder = Path(config.spool.directory)
    owner = _prepare(folder)
    if existing is None:
        _check_writable(config_file)
    known = existing.device.id if existing else _owner_of_spool(config, clock)
    with client_of(config) as client:
        try:
            welcome = enrol(config, client, clock, code=code, device_id=known, owner=owner)
        except Wait as fault:
            raise Wait(f"{fault}. Run the same command again: the code is still good.") from None
        except CredentialsRefused as fault:
            raise ScoutAgentError(str(fault)) from None
        # First, so that whoever finds key and token also finds who this is.
        if existing is None:
            _write_config(config_file, text_for(welcome.device_id), owner)
        keep(config, welcome, owner)
    return Enrolled(welcome.device_id, config_file, existing is None, config.folder.path, folder)


def _existing(config_file: Path, server: str | None) -> Config | None:
    """The config that is there, if it speaks of this server. Raises Misconfigured."""
    if not config_file.exists():
        if server is None:
            raise Misconfigured(f"{config_file} does not exist: name the server with --server URL.")
        return None
    config = configuration.load(config_file)
    if server is not None and server.rstrip("/") != config.server.base_url.rstrip("/"):
        raise Misconfigured(
            f"{config_file}: server.base_url is {config.server.base_url}, not {server}. Nothing was sent: change it "
            "there, or leave --server out."
        )
    return config


def _prepare(folder: Path) -> Owner | None:
    """See that the spool's folder is there; return whose its files are to be, where we may give them away."""
    try:
        if not folder.exists():
            folder.mkdir(FOLDER_MODE, parents=True)
            if os.geteuid() == 0:
                with suppress(KeyError):
                    account = pwd.getpwnam(ACCOUNT)
                    os.chown(folder, account.pw_uid, account.pw_gid)
        status = folder.stat()
    except OSError as error:
        raise LocalFault(f"{folder}: {error.strerror}. Run it with sudo.") from None
    return (status.st_uid, status.st_gid) if os.geteuid() == 0 else None


def _check_writable(config_file: Path) -> None:
    """Before a code is used up. Raises LocalFault."""
    folder = config_file.absolute().parent
    while not folder.exists():
        folder = folder.parent
    if not os.access(folder, os.W_OK | os.X_OK):
        raise LocalFault(f"{config_file} can't be written. Nothing was sent; run it with sudo.")


def _owner_of_spool(config: Config, clock: Clock) -> str | None:
    """Whose sales lie here, where the config is gone. Raises LocalFault when that can't be seen."""
    if not config.spool_file.exists():
        return None
    return view(config.spool_file, clock=clock).state.device_id


def _write_config(file: Path, text: str, owner: Owner | None) -> None:
    configuration.read(text, file)  # what is written will be accepted
    try:
        file.absolute().parent.mkdir(parents=True, exist_ok=True)
        write_safely(os.fsencode(file.absolute()), text.encode(), CONFIG_MODE, (0, owner[1]) if owner else None)
    except OSError as error:
        raise LocalFault(f"{file}: {error.strerror}. Run the same command again: the code is still good.") from None
