"""Every limit of the server with its reason, and where its database and bucket are found."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit

from server.embedded import dsn_of
from server.errors import Misconfigured

MEBIBYTE = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Limits:
    """What the endpoints take before they refuse."""

    object_bytes_max: int = 50 * MEBIBYTE  # Supabase's own default for one object
    body_bytes_max: int = 8 * MEBIBYTE  # a batch is about 125 KB; a shop's year by hand fits too
    expanded_bytes_max: int = 64 * MEBIBYTE  # what a compressed body may grow to in memory
    document_bytes_max: int = 8 * MEBIBYTE  # expanded; an array or object is parsed as a whole, unlike lines
    lines_max: int = 100_000  # of one post: a shop's year. Read, a short line takes a hundred times its bytes
    verify_at_once_max: int = 8  # of the database's 10 connections; calls home and health find one free
    reads_at_once_max: int = 2  # expanding and parsing is work for a core, and takes memory
    report_bytes_max: int = MEBIBYTE  # 500 names and 100 runs for each of many epochs
    body_stall_s: float = 60.0  # a sender that is silent for so long has lost its line
    key_bytes_max: int = 255  # of an Idempotency-Key
    # One agent posts one batch at a time and notes each on its card: it stays below this even with single sales.
    # A till that runs wild is held to a fraction of what the server takes in.
    device_posts_per_s_max: float = 100.0
    device_posts_burst: int = 1000  # a drain after an outage: 2 million sales before the rate counts at all
    deliveries_under_way_max: int = 256  # single sales: half a second of work, or the stall of a disk
    calls_home_under_way_max: int = 256  # of their own, so that a flood of sales hides no device
    bodies_bytes_max: int = 128 * MEBIBYTE  # of all requests together: 256 batches are a quarter of it
    refusal_pause_s: float = 0.25  # a connection that asks again at once does so four times a second
    overload_wait_s_max: int = 10  # 5,000 devices that come at once come back at 500 a second
    posts_waiting_max: int = 256  # behind the one that commits; more are told to come back
    waiting_bytes_max: int = 64 * MEBIBYTE  # expanded, of what waits there; one larger post may wait alone
    rows_per_commit_max: int = 10_000  # what waits longer than this commit goes into the next
    retry_after_s: int = 5  # PostgreSQL is back within this after a crash
    database_wait_s: float = 4.0  # for a connection: then 503 is the better answer
    connections_max: int = 800  # idle ones included; a process may usually open 1024 files
    stop_s: int = 10  # for the requests that are being answered when the server stops


LIMITS = Limits()


def now() -> datetime:
    """The machine's clock: the one place where the server reads it."""
    return datetime.now(UTC)  # noqa: TID251


@dataclass(frozen=True, slots=True)
class Address:
    """Where to listen. Port 0 lets the system choose."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> "Address":
        """Read HOST:PORT; raise Misconfigured when it is anything else."""
        try:
            parts = urlsplit(f"//{text}")
            if parts.hostname and parts.port is not None and not parts.path:
                return cls(parts.hostname, parts.port)
        except ValueError:
            pass
        raise Misconfigured(f"--listen {text!r} is not HOST:PORT, such as 127.0.0.1:8700.")


def find_data(data: Path | None, environment: Mapping[str, str]) -> Path | None:
    """Return the data directory of `--data`, else of SCOUT_DATA."""
    if data is not None:
        return data
    return Path(environment["SCOUT_DATA"]) if environment.get("SCOUT_DATA") else None


def find_database(data: Path | None, database_url: str | None, environment: Mapping[str, str]) -> str:
    """Return the database's URL: of --database-url, --data, SCOUT_DATA or DATABASE_URL, in this order.

    Raises Misconfigured when none is given, or both options; PostgresUnavailable when nothing runs there.
    """
    if data is not None and database_url:
        raise Misconfigured("give --data or --database-url, not both.")
    if database_url:
        return database_url
    found = find_data(data, environment)
    if found is not None:
        return dsn_of(found)
    if environment.get("DATABASE_URL"):
        return environment["DATABASE_URL"]
    raise Misconfigured(
        "which database? Give --data DIR (where 'scout-server up' runs) or --database-url, or set SCOUT_DATA "
        "or DATABASE_URL."
    )


def find_bucket(data: Path | None, bucket: str | None, environment: Mapping[str, str]) -> str:
    """Return the bucket's URL: of --bucket, --data, SCOUT_BUCKET or SCOUT_DATA, in this order.

    Raises Misconfigured when none is given.
    """
    if bucket:
        return bucket
    if data is not None:
        return bucket_url(data)
    if environment.get("SCOUT_BUCKET"):
        return environment["SCOUT_BUCKET"]
    found = find_data(None, environment)
    if found is not None:
        return bucket_url(found)
    raise Misconfigured("which bucket? Give --data DIR or --bucket URL, or set SCOUT_BUCKET.")


def bucket_folder(data: Path) -> Path:
    """Where the server in `data` keeps its objects."""
    return data / "bucket"


def bucket_url(data: Path) -> str:
    """URL of the bucket of the server in `data`."""
    return bucket_folder(data.resolve()).as_uri()
