"""How the fleet stands: what the operators' page shows and `/metrics` counts, looked up no oftener than needed.

    devices    each with its newest report           one query over the devices; kept for DEVICES_KEPT_S
    road       what waits between bucket and silver   the queues alone; kept for ROAD_KEPT_S
    lags       how long what arrived took to gold     the counts of a day; kept for LAGS_KEPT_S
    trouble    missing, forked, refused, silent      reads all of bronze's index; in a thread of its own, and
                                                     no oftener than costs a twentieth of one connection

May be relied on: however many operators look and scrapers ask, the database is asked each of these once per span, by
one at a time. Nobody waits for `trouble` longer than TROUBLE_WAIT_S: until it is known, nothing is said of it.
"""

import threading
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from types import MappingProxyType
from typing import Any, Generic, TypeVar

import psycopg
import structlog
from psycopg.rows import class_row, dict_row
from psycopg_pool import ConnectionPool

from server.audit import Alarm, open_alarms, silent_devices
from server.condition import NO_TROUBLE, Condition, Device, Trouble, conditions, instant, waited_s
from server.database import named_queries

DEVICES_KEPT_S = 3.0
ROAD_KEPT_S = 3.0
LAGS_KEPT_S = 60.0
TROUBLE_KEPT_S = 30.0
TROUBLE_WAIT_S = 2.0
TROUBLE_SHARE = 20
"""Looking is not done again before so many times what it took have passed."""
TROUBLE_MS_MAX = 120_000
AT_ONCE_S = 1.0
"""What takes no longer than this is looked up again as soon as somebody changed something."""
COUNTED_MAX = 100_000
"""Of a queue no more is counted: the number is then a lower bound."""

_QUERIES = named_queries("standing")

T = TypeVar("T")
log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Missing:
    """What of an epoch nobody holds."""

    device_id: str
    epoch: str
    sales: int
    runs: int
    first_seq: int
    last_seq: int
    lost_on_device: int  # of the sales: by the device's own word


@dataclass(frozen=True, slots=True)
class Forked:
    """Sales of an epoch that came under numbers which were given before. All of them are held."""

    device_id: str
    epoch: str
    sales: int
    first_seq: int
    last_seq: int
    first_seen_at: datetime
    last_seen_at: datetime


@dataclass(frozen=True, slots=True)
class Troubles:
    """What the server found out by itself, of all devices."""

    missing: tuple[Missing, ...]
    forked: tuple[Forked, ...]
    alarms: tuple[Alarm, ...]
    refused_lines: int
    refused_objects: int
    by_device: Mapping[str, Trouble]


@dataclass(frozen=True, slots=True)
class Road:
    """What waits on its way from the bucket to silver. Counts up to COUNTED_MAX; ages None where nothing waits.

    And what an operator must not forget meanwhile: renewals that are held, and the last backup.
    """

    at: datetime
    objects_waiting: int
    objects_oldest_s: float | None
    objects_retried: int  # of those: failed before, and will be tried again
    rows_waiting: int
    rows_oldest_s: float | None
    loads_failed: int
    renewals_held_since: datetime | None  # after a restore, until an operator has looked at who is revoked
    backed_up_at: datetime | None  # the newest backup that `backup` completed


@dataclass(frozen=True, slots=True)
class Lag:
    """Within how many seconds 95 of 100 rows came; None where none came."""

    rows_last_hour: int = 0
    rows_last_day: int = 0
    p95_last_hour_s: int | None = None
    p95_last_day_s: int | None = None


@dataclass(frozen=True, slots=True)
class Lags:
    """How long what arrived took, of all devices together: to silver and gold, and from the sale to bronze."""

    etl: Lag = Lag()
    capture: Lag = Lag()


@dataclass(frozen=True, slots=True)
class Standing:
    """A device with all that can be said of it."""

    device: Device
    trouble: Trouble
    conditions: tuple[Condition, ...]

    @property
    def first(self) -> Condition:
        """The most urgent of its conditions."""
        return self.conditions[0]


@dataclass(frozen=True, slots=True)
class Reported:
    """What a device reported within an hour."""

    at_s: float  # since 1970
    waiting_rows: int | None
    oldest_s: float | None


class Kept(Generic[T]):
    """What `look` found, no older than `kept_s`. One looks at a time, and the others wait for what it finds."""

    def __init__(self, look: Callable[[], T], kept_s: float, monotonic: Callable[[], float]) -> None:
        self._look = look
        self._kept_s = kept_s
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._found: tuple[T, float] | None = None

    def get(self) -> T:
        """Return it; raises what `look` raises."""
        with self._lock:
            if self._found is None or self._monotonic() - self._found[1] > self._kept_s:
                found = self._look()
                self._found = found, self._monotonic()
            return self._found[0]

    def forget(self) -> None:
        """Look anew when asked next."""
        with self._lock:
            self._found = None


class KeptAside(Generic[T]):
    """The same of what takes long: looked up in a thread of its own, while callers go on with what was found before."""

    def __init__(self, look: Callable[[], T], kept_s: float, share: int, monotonic: Callable[[], float]) -> None:
        self._look = look
        self._kept_s = kept_s
        self._share = share
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._found: T | None = None
        self._due_at_s: float | None = None
        self._took_s = 0.0
        self._done = threading.Event()
        self._done.set()

    def get(self, wait_s: float) -> T | None:
        """Return what is known, waiting `wait_s` for it where nothing is or where it was forgotten."""
        with self._lock:
            is_due = self._due_at_s is None or self._monotonic() >= self._due_at_s
            waits = self._due_at_s is None
            if is_due and self._done.is_set():
                self._done.clear()
                threading.Thread(target=self._run, name="standing", daemon=True).start()
        if waits:
            self._done.wait(wait_s)
        return self._found

    def forget(self) -> None:
        """Look anew when asked next, where that takes no time worth speaking of."""
        with self._lock:
            if self._took_s < AT_ONCE_S:
                self._due_at_s = None

    def _run(self) -> None:
        began_s = self._monotonic()
        try:
            found = self._look()
        except Exception as error:  # noqa: BLE001  # whatever it is, the next try is made, and the page goes on
            # Its words may quote a row.
            log.warning("trouble_not_counted", error=type(error).__name__)
        else:
            self._found = found
        with self._lock:
            self._took_s = self._monotonic() - began_s
            self._due_at_s = self._monotonic() + max(self._kept_s, self._took_s * self._share)
            self._done.set()


class Fleet:
    """Looks after what is known of all devices."""

    def __init__(self, pool: ConnectionPool, monotonic: Callable[[], float]) -> None:
        self._pool = pool
        self._devices = Kept(self._look_at_devices, DEVICES_KEPT_S, monotonic)
        self._road = Kept(self._look_at_road, ROAD_KEPT_S, monotonic)
        self._lags = Kept(self._look_at_lags, LAGS_KEPT_S, monotonic)
        self._troubles = KeptAside(self._look_for_trouble, TROUBLE_KEPT_S, TROUBLE_SHARE, monotonic)
        self._judged: tuple[list[Device], Troubles | None, list[Standing]] = ([], None, [])

    def standings(self) -> list[Standing]:
        """Every device, by name. Raises psycopg.Error, as the three below."""
        troubles, devices = self.troubles(), self._devices.get()
        judged = self._judged
        # Judging thousands takes longer than a page: not again while neither changed.
        if judged[0] is not devices or judged[1] is not troubles:
            judged = self._judged = devices, troubles, [_standing(device, troubles) for device in devices]
        return judged[2]

    def standing(self, device_id: str) -> Standing | None:
        """One device as it is now, or None when it is not known."""
        with self._pool.connection() as connection:
            found = _devices(connection, device_id)
        return _standing(found[0], self.troubles()) if found else None

    def road(self) -> Road:
        """What waits between the bucket and silver."""
        return self._road.get()

    def lags(self) -> Lags:
        """How long what arrived in the last hour and day took."""
        return self._lags.get()

    def troubles(self) -> Troubles | None:
        """What the server found out by itself; None while that is not known yet."""
        return self._troubles.get(TROUBLE_WAIT_S)

    def forget(self) -> None:
        """Somebody changed something: look anew."""
        self._devices.forget()
        self._road.forget()
        self._troubles.forget()

    def _look_at_devices(self) -> list[Device]:
        with self._pool.connection() as connection:
            return _devices(connection, None)

    def _look_at_road(self) -> Road:
        with self._pool.connection() as connection, connection.cursor(row_factory=class_row(Road)) as cursor:
            road = cursor.execute(_QUERIES["road"], {"counted_max": COUNTED_MAX}).fetchone()
        assert road
        return road

    def _look_at_lags(self) -> Lags:
        with self._pool.connection() as connection:
            return Lags(**{kind: Lag(*lag) for kind, *lag in connection.execute(_QUERIES["lags"])})

    def _look_for_trouble(self) -> Troubles:
        with self._pool.connection() as connection, connection.transaction():
            connection.execute(_QUERIES["take_at_most"], {"ms": str(TROUBLE_MS_MAX)})
            with connection.cursor(row_factory=class_row(Missing)) as cursor:
                missing = cursor.execute(_QUERIES["missing"]).fetchall()
            with connection.cursor(row_factory=class_row(Forked)) as cursor:
                forked = cursor.execute(_QUERIES["forks"]).fetchall()
            refused = connection.execute(_QUERIES["refused"]).fetchall()
            silent = [device.device_id for device in silent_devices(connection)]
            return troubles_of(missing, forked, refused, silent, open_alarms(connection))


def troubles_of(
    missing: Iterable[Missing],
    forked: Iterable[Forked],
    refused: Iterable[tuple[str, str, int]],
    silent: Iterable[str],
    alarms: Iterable[Alarm],
) -> Troubles:
    """Put together what was found; `refused` has device, kind and how many of that kind."""
    missing, forked, alarms = tuple(missing), tuple(forked), tuple(alarms)
    by_device: dict[str, Trouble] = defaultdict(Trouble)
    by_kind: dict[str, int] = defaultdict(int)
    for run in missing:
        known = by_device[run.device_id]
        by_device[run.device_id] = replace(known, missing=known.missing + run.sales)
    for fork in forked:
        known = by_device[fork.device_id]
        by_device[fork.device_id] = replace(known, forked=known.forked + fork.sales)
    for device_id, kind, count in refused:
        known = by_device[device_id]
        by_device[device_id] = replace(known, refused=known.refused + count)
        by_kind[kind] += count
    for device_id in silent:
        by_device[device_id] = replace(by_device[device_id], is_silent=True)
    for alarm in alarms:
        by_device[alarm.device_id] = replace(by_device[alarm.device_id], is_implausible=True)
    return Troubles(missing, forked, alarms, by_kind["line"], by_kind["object"], MappingProxyType(dict(by_device)))


def reported_history(connection: psycopg.Connection, device_id: str, hours: int) -> list[Reported]:
    """What a device reported within the last `hours`, the last report of each hour."""
    values = {"device_id": device_id, "hours": hours}
    return [
        Reported(at_s, waiting_rows, waited_s(instant(sent_at), instant(oldest_at), 0.0))
        for at_s, waiting_rows, sent_at, oldest_at in connection.execute(_QUERIES["history"], values)
    ]


def sales_by_hour(connection: psycopg.Connection, device_id: str, hours: int) -> dict[float, int]:
    """How many sales of a device came to bronze in each of the last `hours`, by the hour's beginning since 1970."""
    values = {"device_id": device_id, "hours": hours}
    return {hour_s: sales or 0 for hour_s, sales in connection.execute(_QUERIES["throughput"], values)}


def _devices(connection: psycopg.Connection, device_id: str | None) -> list[Device]:
    with connection.cursor(row_factory=dict_row) as cursor:
        rows: list[dict[str, Any]] = cursor.execute(_QUERIES["devices"], {"device_id": device_id}).fetchall()
    return [Device.of_row(row) for row in rows]


def _standing(device: Device, troubles: Troubles | None) -> Standing:
    trouble = troubles.by_device.get(device.device_id, NO_TROUBLE) if troubles else NO_TROUBLE
    return Standing(device, trouble, conditions(device, trouble))
