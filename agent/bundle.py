"""A bundle for those who help from afar: one .tar.gz that says how a device is doing.

May be relied on: nothing in it is a token, a key, a password or a sale. What goes in is chosen, not what stays
out: known keys of the config, counts of the spool, events of our own log. Then every text still loses what is
known to be secret here, and what looks like a credential.
"""

import io
import json
import os
import platform
import re
import sqlite3
import subprocess
import tarfile
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
import orjson

from agent import VERSION
from agent import config as configuration
from agent.clock import Clock
from agent.device_key import DeviceKey, pending_file, read_key
from agent.errors import CredentialsRefused, LocalFault
from agent.spool_view import statistics
from agent.token import TokenFile

LOG_LINES_MAX = 2000
ASKED_WITHIN_S = 20.0
SECRET_LEAST = 6  # characters; a shorter one would be found in innocent words
REMOVED = "[removed]"

JOURNAL = ("journalctl", "-u", "scout-agent", "-o", "json", "-n", str(LOG_LINES_MAX), "--no-pager")
UNIT = ("systemctl", "show", "scout-agent", "-p", "LoadState,UnitFileState,ActiveState,SubState,Result,NRestarts")

_SECRET_KEYS = ("api_key", "proxy", "password", "secret")
_TOKEN = re.compile(r"eyJ[\w-]{5,}(?:\.[\w-]*){0,2}")
_CREDENTIALS = re.compile(r"(?<=//)[^/\s\"@]*@")
_QUERY = re.compile(r"(?<=[^\s\"]\?)[^\s\"?]*=[^\s\"]*")
_FRAME = re.compile(r'\s*File "[^"]*", line \d+, in \S+|Traceback .*:')
_ERROR = re.compile(r"[A-Za-z_.]+(?=:|$)")

Ask = Callable[[Sequence[str]], str | None]


def ask_system(command: Sequence[str]) -> str | None:
    """What a program of the system prints; None when it is not there or has nothing to say in time."""
    try:
        done = subprocess.run(command, capture_output=True, timeout=ASKED_WITHIN_S, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.decode("utf-8", "replace") if done.returncode == 0 else None


def parts_of(config_file: Path, spool_file: Path, *, clock: Clock, ask: Ask = ask_system) -> dict[str, str]:
    """What a bundle holds besides what doctor and status said. What can't be read says so itself."""
    return {
        "config.json": _json(_known_keys(config_file)),
        "spool.json": _json(_spool(spool_file)),
        "versions.json": _json(_versions()),
        "log.jsonl": "".join(f"{line}\n" for line in _log_lines(ask(JOURNAL) or "")),
        "unit.txt": ask(UNIT) or "systemd did not answer\n",
        "written_at.txt": f"{clock.now().isoformat()}\n",
    }


def secrets_of(config_file: Path, token_file: Path, device_key_file: Path | None = None) -> set[str]:
    """What must be nowhere in a bundle, whoever said it."""
    table = _table(config_file)
    secrets = {str(value) for path, value in _leaves(table) if path.rpartition(".")[2] in _SECRET_KEYS and value}
    try:
        token = TokenFile(token_file).read().text
    except CredentialsRefused:
        token = ""
    secrets |= {key.private_key for key in _keys(device_key_file)}
    return {secret for secret in (*secrets, token, *token.split(".")) if len(secret) >= SECRET_LEAST}


def _keys(file: Path | None) -> Iterator[DeviceKey]:
    """The device's key, and the one that is not in force yet."""
    for place in (file, pending_file(file)) if file else ():
        with suppress(CredentialsRefused):
            key = read_key(place)
            if key is not None:
                yield key


def write_bundle(file: Path, parts: Mapping[str, str], secrets: Iterable[str], clock: Clock) -> None:
    """Write the parts under their names, readable by the owner alone. Raises LocalFault; an old file stays."""
    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as error:
        raise LocalFault(f"{file}: {error.strerror}. Name another file with --bundle.") from None
    try:
        with os.fdopen(descriptor, "wb") as target, tarfile.open(fileobj=target, mode="w:gz") as archive:
            for name, text in parts.items():
                content = harmless(text, secrets).encode()
                member = tarfile.TarInfo(f"scout-agent-bundle/{name}")
                member.size, member.mode, member.mtime = len(content), 0o600, int(clock.now().timestamp())
                archive.addfile(member, io.BytesIO(content))
    except OSError as error:
        file.unlink()
        raise LocalFault(f"{file}: {error.strerror}. Nothing was written.") from None


def harmless(text: str, secrets: Iterable[str]) -> str:
    """A text without these secrets, and without what looks like a credential."""
    for secret in sorted(secrets, key=len, reverse=True):
        text = text.replace(secret, REMOVED)
    for pattern in (_TOKEN, _CREDENTIALS, _QUERY):
        text = pattern.sub(REMOVED, text)
    return text


def _known_keys(config_file: Path) -> dict[str, Any]:
    """The keys that the agent knows and that hold no secret; of the others the names alone."""
    known = configuration.keys().keys()
    return {
        path: value if path in known and path.rpartition(".")[2] not in _SECRET_KEYS else REMOVED
        for path, value in _leaves(_table(config_file))
    }


def _table(config_file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(config_file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


def _leaves(table: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in table.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _spool(file: Path) -> object:
    try:
        return statistics(file)
    except LocalFault as fault:
        return {"problem": str(fault)}


def _versions() -> dict[str, str]:
    return {
        "agent": VERSION,
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
        "system": platform.platform(),
        "machine": platform.machine(),
    }


def _log_lines(journal: str) -> Iterator[str]:
    """Events as they are. Of a traceback its places and the error's name: its words may quote a sale."""
    for line in journal.splitlines():
        try:
            entry = orjson.loads(line)
        except orjson.JSONDecodeError:
            continue
        message = entry.get("MESSAGE")
        if isinstance(message, str) and (kept := _kept(message, entry.get("_PID") == "1")):
            yield _json({"at": entry.get("__REALTIME_TIMESTAMP"), "message": kept})


def _kept(message: str, is_systemds: bool) -> str | None:
    if is_systemds or _is_event(message):
        return message
    found = _FRAME.match(message) or _ERROR.match(message)
    return found[0] if found else None


def _is_event(message: str) -> bool:
    try:
        event = msgspec.json.decode(message, type=dict[str, Any])
    except msgspec.MsgspecError:
        return False
    return "event" in event and "payload" not in event


def _json(value: object) -> str:
    return json.dumps(value, default=str)
