"""The agent's configuration: every key, its default and its limits.

May be relied on: a `Config` that exists is whole and within its limits; anything else was refused with file,
key and what is allowed, before the spool was touched. `config.example.toml` lists the same keys; a test
compares the two.
"""

import os
import re
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal, get_args
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta

from agent.errors import ConfigForbidden, Misconfigured
from wire.device import device_id_problem
from wire.record import PAYLOAD_BYTES_MAX

CONFIG_VARIABLE = "SCOUT_AGENT_CONFIG"
CONFIG_DEFAULT = Path("/etc/scout-agent/config.toml")
RUNTIME_DEFAULT = Path("/run/scout-agent")
STATUS_FILE = "status.json"
BUCKET = "scout-ingest"

_KEY_OF_ERROR = re.compile(r" - at `\$(?P<path>[^`]*)`$")

Seconds = Annotated[float, Meta(gt=0, le=86_400)]


class _Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A table of the config file."""


class Device(_Section, frozen=True):
    """Who this device is."""

    id: str


class Server(_Section, frozen=True):
    """Where to deliver. Each address follows from base_url unless it is set."""

    base_url: str
    bucket_url: str = ""
    ingest_url: str = ""
    heartbeat_url: str = ""
    api_key: str = ""
    token_file: str = ""


class Folder(_Section, frozen=True):
    """The folder into which the till drops files."""

    path: str
    settle_s: Seconds = 2.0
    file_bytes_max: Annotated[int, Meta(ge=PAYLOAD_BYTES_MAX, le=1024**3)] = 32 * 1024 * 1024


class SpoolSection(_Section, frozen=True):
    """Where sales wait, and for how long settled ones are kept."""

    directory: str = "/var/lib/scout-agent"
    keep_for_days: Annotated[int, Meta(ge=1, le=365)] = 8


class BatchSection(_Section, frozen=True):
    """When a run of sales is sealed into a batch: whichever is reached first."""

    rows_max: Annotated[int, Meta(ge=1, le=100_000)] = 2000
    bytes_max: Annotated[int, Meta(ge=1024, le=16 * 1024 * 1024)] = 1024 * 1024
    age_max_s: Seconds = 10.0


class Upload(_Section, frozen=True):
    """How batches leave."""

    mode: Literal["bucket", "endpoint", "auto"] = "auto"
    failover_after_failures: Annotated[int, Meta(ge=1, le=1000)] = 3
    failback_after_s: Seconds = 600.0
    connect_timeout_s: Seconds = 10.0
    stall_timeout_s: Seconds = 60.0
    retry_wait_max_s: Seconds = 300.0
    refusals_max: Annotated[int, Meta(ge=1, le=100)] = 5
    gzip_level: Annotated[int, Meta(ge=1, le=9)] = 6


class Heartbeat(_Section, frozen=True):
    """How often to call home."""

    interval_s: Seconds = 60.0


class Config(_Section, frozen=True):
    """The whole file."""

    device: Device
    server: Server
    folder: Folder
    spool: SpoolSection = msgspec.field(default_factory=SpoolSection)
    batch: BatchSection = msgspec.field(default_factory=BatchSection)
    upload: Upload = msgspec.field(default_factory=Upload)
    heartbeat: Heartbeat = msgspec.field(default_factory=Heartbeat)

    @property
    def spool_file(self) -> Path:
        """The SQLite database."""
        return Path(self.spool.directory) / "spool.db"

    @property
    def token_file(self) -> Path:
        """The file that holds the device token, and nothing else."""
        return Path(self.server.token_file or Path(self.spool.directory) / "token")

    @property
    def status_file(self) -> Path:
        """Where the daemon publishes its status: in systemd's runtime directory, not on the card, if there is one."""
        return (runtime_directory() or Path(self.spool.directory)) / STATUS_FILE

    @property
    def bucket_url(self) -> str:
        """Below which objects are posted by key."""
        return self.server.bucket_url or f"{self._base}/storage/v1/object/{BUCKET}"

    @property
    def ingest_url(self) -> str:
        """The ingest endpoint."""
        return self.server.ingest_url or f"{self._base}/ingest-transaction"

    @property
    def heartbeat_url(self) -> str:
        """The call home."""
        return self.server.heartbeat_url or f"{self._base}/rest/v1/rpc/heartbeat"

    @property
    def _base(self) -> str:
        return self.server.base_url.rstrip("/")


def runtime_directory() -> Path | None:
    """Where systemd lets the agent keep what need not outlive it: in memory. None when not started by systemd."""
    first = os.environ.get("RUNTIME_DIRECTORY", "").partition(":")[0]
    return Path(first) if first else None


def default_path() -> Path:
    """The config file when none is named: SCOUT_AGENT_CONFIG, else the packaged place."""
    return Path(os.environ.get(CONFIG_VARIABLE) or CONFIG_DEFAULT)


def load(path: Path) -> Config:
    """Read and check a config file; raise Misconfigured naming file, key and what is allowed."""
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise Misconfigured(
            f"{path} does not exist. Copy config.example.toml there, or name another file with --config."
        ) from None
    except PermissionError:
        raise ConfigForbidden(f"{path}: this user may not read it") from None
    except OSError as error:
        raise Misconfigured(f"{path}: {error.strerror}. The agent's user must be able to read it.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise Misconfigured(f"{path}: not valid TOML: {error}") from None
    try:
        config = msgspec.convert(table, Config)
    except msgspec.ValidationError as error:
        raise Misconfigured(f"{path}: {_explained(str(error))}") from None
    problem = _problem(config)
    if problem:
        raise Misconfigured(f"{path}: {problem}")
    return config


def keys() -> dict[str, Any]:
    """Every key as `section.name`, with its default; msgspec.NODEFAULT where one must be given."""
    return {
        f"{section.name}.{key.name}": key.default
        for section in msgspec.structs.fields(Config)
        for key in msgspec.structs.fields(section.type)
    }


def _problem(config: Config) -> str | None:
    """What types alone can't refuse."""
    device = device_id_problem(config.device.id)
    if device:
        return f"device.id: {device}"
    urls = {"base_url": config.server.base_url}
    for key in ("bucket_url", "ingest_url", "heartbeat_url"):
        urls[key] = getattr(config.server, key) or config.server.base_url
    for key, url in urls.items():
        if not _is_address(url):
            return f"server.{key}: must be an address such as https://sales.example.com, without user or password"
    if not (config.server.api_key.isascii() and config.server.api_key.isprintable()):
        return "server.api_key: must be plain ASCII, for it travels as a header"
    for key, path in {"folder.path": config.folder.path, "spool.directory": config.spool.directory}.items():
        if not Path(path).is_absolute():
            return f"{key}: must be an absolute path, beginning with /"
    if Path(config.spool.directory) in (Path(config.folder.path), *Path(config.folder.path).parents):
        return "folder.path: must not lie in spool.directory, where only the agent writes"
    return None


def _is_address(url: str) -> bool:
    try:
        parts = urlsplit(url)
        has_port = parts.port is None or parts.port > 0
    except ValueError:
        return False
    # A password in an address would end up in logs and in `status`.
    return parts.scheme in ("http", "https") and bool(parts.hostname) and has_port and parts.username is None


def _explained(message: str) -> str:
    """Put the key in front, and for an unknown one the keys that are allowed there."""
    found = _KEY_OF_ERROR.search(message)
    path = found["path"].lstrip(".") if found else ""
    text = message[: found.start()] if found else message
    unknown = re.fullmatch(r"Object contains unknown field `(.*)`", text)
    if unknown:
        name = f"{path}.{unknown[1]}" if path else unknown[1]
        prefix = f"{path}." if path else ""
        known = {key.removeprefix(prefix).partition(".")[0] for key in keys() if key.startswith(prefix)}
        return f"unknown key {name}; allowed here: {', '.join(sorted(known))}"
    missing = re.fullmatch(r"Object missing required field `(.*)`", text)
    if missing:
        return f"{path}.{missing[1]} is missing".lstrip(".") + "; it has no default"
    if text.startswith("Invalid enum value"):
        text += f"; allowed: {', '.join(_choices(path))}"
    return f"{path}: {text[:1].lower()}{text[1:]}"


def _choices(path: str) -> tuple[str, ...]:
    section, _, name = path.partition(".")
    types = {field.name: field.type for field in msgspec.structs.fields(Config)}
    return get_args({key.name: key.type for key in msgspec.structs.fields(types[section])}[name])
