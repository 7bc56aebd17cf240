"""What an operator sees and does by hand: how far each device's sales are, and the word after a restore.

May be relied on: nothing here touches a row of bronze.
"""

from dataclasses import dataclass
from datetime import datetime

import psycopg
from psycopg.rows import class_row

from server.database import named_queries

_QUERIES = named_queries("operator")


@dataclass(frozen=True, slots=True)
class DeviceStatus:
    """How far one device's sales have come."""

    device_id: str
    source: str  # under which its sales count
    files_waiting: int
    files_loaded: int
    files_quarantined: int
    rows_loaded: int
    rows_duplicate: int
    rows_refused: int
    rows_last_minute: int
    rows_last_hour: int
    rows_last_day: int
    rows_waiting: int  # in bronze and not yet in silver
    lag_s: float  # how long the oldest of them has waited
    etl_lag_p95_s: int | None  # from bronze's commit to gold, of 95 of 100 rows of the last hour
    etl_lag_p95_day_s: int | None  # of the last day
    capture_lag_p95_s: int | None  # from the sale to bronze
    capture_lag_p95_day_s: int | None
    first_loaded_at: datetime | None
    last_loaded_at: datetime | None
    last_error: str | None
    is_silent: bool  # it should have called home and did not


def ingestion_status(connection: psycopg.Connection) -> list[DeviceStatus]:
    """Every device that is known or ever delivered, by name."""
    with connection.cursor(row_factory=class_row(DeviceStatus)) as cursor:
        return cursor.execute(_QUERIES["ingestion_status"]).fetchall()


def devices_heard(connection: psycopg.Connection) -> tuple[int, datetime | None]:
    """How many devices have called home, and when the last one did."""
    row = connection.execute(_QUERIES["devices_heard"]).fetchone()
    assert row
    return row[0], row[1]


def begin_generation(connection: psycopg.Connection) -> None:
    """Begin a new life of the database: devices that hear of it ask again about all batches they keep."""
    connection.execute(_QUERIES["begin_generation"])
