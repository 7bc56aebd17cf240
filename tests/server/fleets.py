"""A fleet in every state, as the database holds one: made with times of the database, none of them absolute."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from random import Random
from typing import Any

import psycopg
from psycopg.types.json import Jsonb

from server import tokens

MINUTE_S, HOUR_S, DAY_S = 60.0, 3600.0, 86_400.0
EPOCH = "00000000000000aa"
HISTORY_HOURS = 24 * 7


@dataclass(frozen=True, slots=True)
class Shop:
    """A device and what is said of it. Ages in seconds before now; None for what is not said."""

    device_id: str
    heard_s: float | None = 30.0
    oldest_s: float | None = None
    waiting: int = 0
    set_aside: int = 0
    token_left_s: float | None = 22 * DAY_S
    clock_ahead_s: float = 0.3
    disk_free: int = 11 * 1024**3
    version: str = "0.1.0"
    is_revoked: bool = False
    missing: int = 0
    forked: int = 0
    refused: int = 0
    is_implausible: bool = False


STATES: dict[str, dict[str, Any]] = {
    "well": {},
    "waiting": {"oldest_s": 3 * HOUR_S, "waiting": 212},
    "late": {"oldest_s": 2 * DAY_S, "waiting": 4_120},
    "silent": {"heard_s": 3 * DAY_S, "oldest_s": 100.0, "waiting": 87},
    "never": {"heard_s": None},
    "revoked": {"is_revoked": True},
    "token-due": {"token_left_s": 3 * DAY_S},
    "token-over": {"token_left_s": -DAY_S, "oldest_s": DAY_S, "waiting": 1_903},
    "clock": {"clock_ahead_s": -3 * HOUR_S},
    "set-aside": {"set_aside": 2_000, "oldest_s": 5 * HOUR_S},
    "disk": {"disk_free": 90 * 1024**2, "waiting": 61_400, "oldest_s": 12 * DAY_S},
    "missing": {"missing": 17},
    "forked": {"forked": 3},
    "refused": {"refused": 2},
    "implausible": {"is_implausible": True},
}
"""What makes a device be in each state."""


def one_of_each() -> list[Shop]:
    """A device in each state, called like it."""
    return [Shop(f"pi-{state}", **made) for state, made in STATES.items()]


def a_fleet(devices: int, seed: int = 1) -> Iterator[Shop]:
    """A fleet as it usually is: most are well, some of every state, names in five provinces."""
    random = Random(seed)
    provinces = ("cavite", "laguna", "bulacan", "rizal", "batangas")
    states = list(STATES)
    for number in range(devices):
        # Each state is there, whatever comes by chance.
        rare = random.choice(states) if random.random() < 0.25 else "well"
        made = dict(STATES[states[number] if number < len(states) else rare])
        if "waiting" in made:
            made["waiting"] = round(made["waiting"] * random.uniform(0.2, 1.8))
        if "oldest_s" in made:
            made["oldest_s"] *= random.uniform(0.9, 1.6)
        made.setdefault("heard_s", random.uniform(2, 280))
        made.setdefault("clock_ahead_s", random.gauss(0, 0.4))
        made.setdefault("token_left_s", random.uniform(8, 29) * DAY_S)
        made["version"] = random.choice(("0.1.0", "0.1.0", "0.1.0", "0.0.9"))
        yield Shop(f"{random.choice(provinces)}-{number:04d}", **made)


def open_shops(connection: psycopg.Connection, shops: list[Shop], *, history_of: int = 0) -> None:
    """Bring them into the database; of the first `history_of` devices with a week's history."""
    with connection.transaction():
        for shop in shops:
            _open(connection, shop)
        for shop in shops[:history_of]:
            _remember(connection, shop)


def report_of(shop: Shop, now_s: float) -> dict[str, Any]:
    """What the device said when it was heard last, by its own clock."""
    sent_s = now_s - (shop.heard_s or 0.0) + shop.clock_ahead_s
    oldest_s = None if shop.oldest_s is None else sent_s - shop.oldest_s
    return {
        "nonce": "n",
        "version": shop.version,
        "sent_at": _text(sent_s),
        "clock": "synced" if abs(shop.clock_ahead_s) < 60 else "unsynced",
        "boot": "boot-1",
        "mono_ms": 1,
        "epochs": [{"epoch": EPOCH, "head": 1000, "unsettled": [[990, 1000]]}],
        "waiting_rows": shop.waiting,
        "accepted_rows": 0,
        "set_aside_rows": shop.set_aside,
        "spool_bytes": 4_300_800 + 300 * shop.waiting,
        "disk_free_bytes": shop.disk_free,
        "oldest_unsettled_at": oldest_s and _text(oldest_s),
        "token_expires_at": None if shop.token_left_s is None else _text(now_s + shop.token_left_s),
    }


def hear(connection: psycopg.Connection, device_id: str, report: Any, heard_s: float = 5.0) -> None:
    """Let the database have heard this report of a known device."""
    connection.execute(
        "insert into scout_edge.heartbeats values (%(device)s, now() - %(heard_s)s * interval '1 second', %(report)s)"
        " on conflict (device_id) do update set heard_at = excluded.heard_at, report = excluded.report",
        {"device": device_id, "heard_s": heard_s, "report": Jsonb(report)},
    )


def now_s(connection: psycopg.Connection) -> float:
    """The database's time."""
    row = connection.execute("select extract(epoch from now())::float8").fetchone()
    assert row
    return float(row[0])


def hold_line(connection: psycopg.Connection, device_id: str, raw: bytes, reason: str = "not JSON") -> int:
    """Hold a line that was refused; return its number."""
    row = connection.execute(
        "with file as (insert into scout_bronze.files"
        " (bucket, key, device_id, state, loaded_at, lines, accepted, duplicates, rejected, bytes)"
        " values ('endpoint', %(key)s, %(device)s, 'loaded', now(), 1, 0, 0, 1, %(bytes)s) returning file_id)"
        " insert into scout_bronze.quarantine (file_id, kind, device_id, line, place, reason, raw, identity)"
        " select file_id, 'line', %(device)s, 1, 1, %(reason)s, %(raw)s, sha256(%(key)s::bytea) from file"
        " returning quarantine_id",
        {
            "key": f"2026-01-20/{device_id}/{hash(raw) & 0xFFFFFFFF:08x}.jsonl",
            "device": device_id,
            "raw": raw,
            "reason": reason,
            "bytes": len(raw),
        },
    ).fetchone()
    assert row
    return int(row[0])


def _open(connection: psycopg.Connection, shop: Shop) -> None:
    tokens.add_device(connection, shop.device_id)
    if shop.is_revoked:
        connection.execute("update scout_edge.devices set revoked_at = now() where device_id = %s", [shop.device_id])
    if shop.heard_s is not None:
        hear(connection, shop.device_id, report_of(shop, now_s(connection)), shop.heard_s)
    if shop.missing:
        connection.execute(
            "insert into scout_edge.heads (device_id, epoch, head, unsettled, first_heard_at, last_heard_at)"
            " values (%s, %s, %s, '{}', now(), now())",
            [shop.device_id, EPOCH, shop.missing],
        )
    for seq in range(1, shop.forked + 1):
        connection.execute(
            "insert into scout_bronze.forks (device_id, epoch, seq, id, first_id)"
            " values (%s, %s, %s, gen_random_uuid(), gen_random_uuid())",
            [shop.device_id, EPOCH, seq],
        )
    if shop.is_implausible:
        connection.execute(
            "insert into scout_edge.alarms (device_id, kind, detail) values (%s, 'head_jumped', %s)",
            [shop.device_id, f"epoch {EPOCH}: head 999999999999 was reported"],
        )
    for number in range(shop.refused):
        hold_line(connection, shop.device_id, f'{{"store_id":"102","peso_value":12{number}.50,}}'.encode())


def _remember(connection: psycopg.Connection, shop: Shop) -> None:
    """A week of reports with a silent night and an outage in it, files that came of it, and how long the last took."""
    for kind, below_s, rows in (("etl", 5, 57), ("etl", 10, 3), ("capture", 60, 50), ("capture", 21_600, 10)):
        connection.execute(
            "insert into scout_bronze.lags values (date_trunc('hour', now(), 'UTC'), %s, %s, %s, %s)",
            [shop.device_id, kind, below_s, rows],
        )
    random = Random(shop.device_id)
    backlog = 0
    begin_s = now_s(connection) // HOUR_S * HOUR_S - HISTORY_HOURS * HOUR_S
    for hour in range(HISTORY_HOURS):
        at_s = begin_s + (hour + 0.9) * HOUR_S
        hour_of_day, day = hour % 24, hour // 24
        sold = round(max(random.gauss(60, 15), 0)) if 6 <= hour_of_day <= 21 else 0
        is_out = day == 3 and 8 <= hour_of_day <= 19
        is_off = day == 5 and hour_of_day < 9
        if is_off:
            continue
        backlog = backlog + sold if is_out else 0
        outage_s = (hour_of_day - 8) * HOUR_S + 1800
        aged = Shop(shop.device_id, heard_s=0.0, waiting=backlog or 3, oldest_s=outage_s if is_out else 12.0)
        connection.execute(
            "insert into scout_edge.heartbeat_history values (%s, to_timestamp(%s), to_timestamp(%s), %s)"
            " on conflict do nothing",
            [shop.device_id, at_s // HOUR_S * HOUR_S, at_s, Jsonb(report_of(aged, at_s))],
        )
        if sold and not is_out:
            connection.execute(
                "insert into scout_bronze.files (bucket, key, device_id, state, found_at, loaded_at, lines, accepted,"
                " duplicates, rejected, bytes) values ('bucket', %(key)s, %(device)s, 'loaded', to_timestamp(%(at)s),"
                " to_timestamp(%(at)s), %(sold)s, %(sold)s, 0, 0, %(bytes)s)",
                {
                    "key": f"2026-01-20/{shop.device_id}/{EPOCH}-{hour:012d}-{hour + sold:012d}-{hour:016x}.jsonl.gz",
                    "device": shop.device_id,
                    "at": at_s,
                    "sold": sold,
                    "bytes": sold * 420,
                },
            )


def _text(at_s: float) -> str:
    return datetime.fromtimestamp(at_s, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
