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

from agent.errors import ConfigForbidden, ConfigMissing, Misconfigured
from agent.loopback import NotLoopback, listen_address
from agent.quiet_hours import quiet_hours_problem
from wire.device import device_id_problem
from wire.record import PAYLOAD_BYTES_MAX

CONFIG_VARIABLE = "SCOUT_AGENT_CONFIG"
CONFIG_DEFAULT = Path("/etc/scout-agent/config.toml")
RUNTIME_DEFAULT = Path("/run/scout-agent")
STATUS_FILE = "status.json"
DEVICE_KEY_FILE = "device-key"
TOKEN_PATH = "/oauth/token"  # noqa: S105  (a path)
BUCKET = "scout-ingest"
SOCKET_PATH_BYTES_MAX = 100  # the system takes 107; four are for the name under which it is made

RATE_KBIT_MIN = 8
"""A batch of the usual size takes two minutes at that; slower, servers give up on it."""
WAL_BYTES_KEPT = 4 * 1024 * 1024  # a warm WAL costs half the writes of one that grows anew
RESERVE_BYTES_LEAST = 2 * 1024 * 1024

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
    token_url: str = ""
    api_key: str = ""
    token_file: str = ""


class Folder(_Section, frozen=True):
    """The folder into which the till drops files. "" means that this source isn't used."""

    path: str
    settle_s: Seconds = 2.0
    file_bytes_max: Annotated[int, Meta(ge=PAYLOAD_BYTES_MAX, le=1024**3)] = 32 * 1024 * 1024


class LocalHttp(_Section, frozen=True):
    """The ingest endpoint on this device, and its metrics."""

    listen: str = ""
    socket: str = ""
    body_bytes_max: Annotated[int, Meta(ge=PAYLOAD_BYTES_MAX, le=64 * 1024 * 1024)] = 2 * 1024 * 1024
    connections_max: Annotated[int, Meta(ge=1, le=256)] = 16
    request_timeout_s: Seconds = 30.0
    idle_timeout_s: Seconds = 60.0

    @property
    def is_on(self) -> bool:
        """Whether it listens anywhere."""
        return bool(self.listen or self.socket)


class Tail(_Section, frozen=True):
    """The folder in which the till appends to files. "" means that this source isn't used."""

    path: str = ""


class SpoolSection(_Section, frozen=True):
    """Where sales wait, and for how long settled ones are kept."""

    directory: str = "/var/lib/scout-agent"
    bytes_max: Annotated[int, Meta(ge=0, le=1024**4)] = 0
    disk_free_bytes_min: Annotated[int, Meta(ge=0, le=1024**4)] = 64 * 1024 * 1024
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
    rate_kbit_max: Annotated[int, Meta(ge=0, le=1_000_000)] = 0
    quiet_hours: str = ""
    proxy: str = ""
    ca_file: str = ""


class Heartbeat(_Section, frozen=True):
    """How often to call home."""

    interval_s: Seconds = 60.0


class Config(_Section, frozen=True):
    """The whole file."""

    device: Device
    server: Server
    folder: Folder = msgspec.field(default_factory=lambda: Folder(path=""))
    tail: Tail = msgspec.field(default_factory=Tail)
    local_http: LocalHttp = msgspec.field(default_factory=LocalHttp)
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
    def device_key_file(self) -> Path:
        """The private key with which this device renews its token; there is none before it is enrolled."""
        return Path(self.spool.directory) / DEVICE_KEY_FILE

    @property
    def status_file(self) -> Path:
        """Where the daemon publishes its status: in systemd's runtime directory, not on the card, if there is one."""
        return (runtime_directory() or Path(self.spool.directory)) / STATUS_FILE

    @property
    def rejected_folders(self) -> tuple[Path, ...]:
        """Where lies what the sources in use can't take."""
        folder = (Path(self.folder.path) / "rejected",) if self.folder.path else ()
        return (*folder, self.tail_rejected_folder) if self.tail.path else folder

    @property
    def tail_rejected_folder(self) -> Path:
        """In the agent's own directory: the tail source writes nothing into the till's folder."""
        return Path(self.spool.directory) / "rejected"

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
    def token_url(self) -> str:
        """Where a device gets its next token."""
        return self.server.token_url or f"{self._base}{TOKEN_PATH}"

    @property
    def nonce_url(self) -> str:
        """Where it gets what to sign for that."""
        return self.token_url.removesuffix(TOKEN_PATH) + "/oauth/nonce"

    @property
    def enrol_url(self) -> str:
        """Where it gets its first token for a code."""
        return self.token_url.removesuffix(TOKEN_PATH) + "/enrol"

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
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigMissing(
            f"{path} does not exist. This machine is not enrolled yet: ask the back office for a code, then run "
            "sudo scout-agent enrol, which writes it. Or name another file with --config."
        ) from None
    except PermissionError:
        raise ConfigForbidden(f"{path}: this user may not read it") from None
    except OSError as error:
        raise Misconfigured(f"{path}: {error.strerror}. The agent's user must be able to read it.") from None
    except UnicodeDecodeError as error:
        raise Misconfigured(f"{path}: not valid TOML: {error}") from None
    return read(text, path)


def read(text: str, path: Path) -> Config:
    """Check the text of a config, as if it lay in `path`. Raises Misconfigured as `load` does."""
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise Misconfigured(f"{path}: not valid TOML: {error}") from None
    try:
        config = msgspec.convert(table, Config)
    except msgspec.ValidationError as error:
        raise Misconfigured(f"{path}: {_explained(str(error))}") from None
    problem = _problem(config)
    if problem:
        raise Misconfigured(f"{path}: {problem}")
    return config


def reserve_bytes(config: Config) -> int:
    """What of spool.bytes_max is kept back: enough to seal, settle and forget a batch when all else is taken."""
    return RESERVE_BYTES_LEAST + 2 * config.batch.bytes_max


def spool_bytes_least(config: Config) -> int:
    """The smallest spool that works: the reserve, a warm WAL, and two batches or the largest file, WAL included."""
    return reserve_bytes(config) + WAL_BYTES_KEPT + 2 * max(2 * config.batch.bytes_max, config.folder.file_bytes_max)


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
    for key in ("bucket_url", "ingest_url", "heartbeat_url", "token_url"):
        urls[key] = getattr(config.server, key) or config.server.base_url
    for key, url in urls.items():
        if not _is_address(url):
            return f"server.{key}: must be an address such as https://sales.example.com, without user or password"
    if not config.token_url.endswith(TOKEN_PATH):
        return f"server.token_url: must end in {TOKEN_PATH}: /oauth/nonce and /enrol are found beside it"
    if not (config.server.api_key.isascii() and config.server.api_key.isprintable()):
        return "server.api_key: must be plain ASCII, for it travels as a header"
    return (
        _source_problem(config)
        or _place_problem(config)
        or _spool_problem(config)
        or _local_http_problem(config.local_http)
        or _upload_problem(config.upload)
    )


def _source_problem(config: Config) -> str | None:
    if not (config.folder.path or config.tail.path or config.local_http.is_on):
        return (
            "folder.path, tail.path, local_http.listen, local_http.socket: at least one must be set, "
            "or no sale is ever taken"
        )
    return None


def _place_problem(config: Config) -> str | None:
    """Two sources on one file would take it twice, and nobody but the agent writes where the spool is."""
    folder, tail, spool = config.folder.path, config.tail.path, config.spool.directory
    for key, path in {"folder.path": folder or "/", "tail.path": tail or "/", "spool.directory": spool}.items():
        if not Path(path).is_absolute():
            return f"{key}: must be an absolute path, beginning with /"
    if folder and _lies_in(folder, spool):
        return "folder.path: must not lie in spool.directory, where only the agent writes"
    for key, other in {"folder.path": folder, "spool.directory": spool}.items():
        if tail and other and (_lies_in(tail, other) or _lies_in(other, tail)):
            return f"tail.path: must be apart from {key}: neither may lie in the other"
    return None


def _spool_problem(config: Config) -> str | None:
    if 0 < config.spool.bytes_max < spool_bytes_least(config):
        return (
            f"spool.bytes_max: must be at least {spool_bytes_least(config)}, so that two batches and the largest file "
            "of folder.file_bytes_max fit; or 0, and it follows from the disk"
        )
    return None


def _lies_in(inner: str, outer: str) -> bool:
    """Whether one folder is or lies in the other, whatever links lead there."""
    return Path(os.path.realpath(inner)).is_relative_to(os.path.realpath(outer))


def _local_http_problem(section: LocalHttp) -> str | None:
    if section.listen:
        try:
            listen_address(section.listen)
        except NotLoopback as problem:
            return f"local_http.listen: {problem}"
    if section.socket and not Path(section.socket).is_absolute():
        return "local_http.socket: must be an absolute path, beginning with /"
    if len(os.fsencode(section.socket)) > SOCKET_PATH_BYTES_MAX:
        return f"local_http.socket: must be at most {SOCKET_PATH_BYTES_MAX} bytes long, for the system takes no more"
    return None


def _upload_problem(upload: Upload) -> str | None:
    if 0 < upload.rate_kbit_max < RATE_KBIT_MIN:
        return f"upload.rate_kbit_max: must be 0, for no limit, or at least {RATE_KBIT_MIN}"
    quiet = quiet_hours_problem(upload.quiet_hours)
    if quiet:
        return f"upload.quiet_hours: {quiet}"
    if upload.proxy and not _is_proxy(upload.proxy):
        return "upload.proxy: must be an address such as http://proxy.example.com:3128"
    if upload.ca_file and not Path(upload.ca_file).is_absolute():
        return "upload.ca_file: must be an absolute path, beginning with /"
    return None


def _is_proxy(address: str) -> bool:
    """Whether a proxy's address is one. It may hold user and password, so it is never shown."""
    try:
        parts = urlsplit(address)
    except ValueError:
        return False
    return _is_address(parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()) and parts.path in ("", "/")


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
