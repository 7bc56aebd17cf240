"""What is known of all devices: looked up once for everybody, and never waited for when it takes long."""

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise

import psycopg
import pytest
from endpoints import DEADLINE_S
from fleets import EPOCH, HOUR_S, Shop, a_fleet, hold_line, open_shops, report_of
from psycopg_pool import ConnectionPool
from structlog.testing import capture_logs

from server.standing import Fleet, Kept, KeptAside, Trouble, reported_history


@dataclass
class Watch:
    """A clock that is moved by hand."""

    at_s: float = 100.0

    def __call__(self) -> float:
        """What it shows."""
        return self.at_s


@pytest.fixture
def watch() -> Watch:
    """A clock."""
    return Watch()


@pytest.fixture
def fleet(pool: ConnectionPool, watch: Watch) -> Fleet:
    """What is known of the devices of an empty database."""
    return Fleet(pool, watch)


def test_many_who_ask_at_once_cost_one_look(watch: Watch):
    """However many operators and scrapers there are."""
    looks: list[int] = []
    kept = Kept(lambda: looks.append(1) or len(looks), 3.0, watch)

    with ThreadPoolExecutor(20) as threads:
        found = list(threads.map(lambda _: kept.get(), range(200)))

    assert set(found) == {1}
    watch.at_s += 3.1
    assert kept.get() == 2


def test_what_failed_is_looked_up_again_at_once(watch: Watch):
    """A database that is back is seen to be back."""
    answers = iter([psycopg.OperationalError("away"), "here"])

    def look() -> str:
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    kept = Kept(look, 3.0, watch)

    with pytest.raises(psycopg.OperationalError):
        kept.get()
    assert kept.get() == "here"


def test_nobody_waits_for_what_takes_long(watch: Watch):
    """Until it is known nothing is said of it; then what was known before is given meanwhile."""
    may_end, ended = threading.Event(), threading.Event()

    def look() -> float:
        may_end.wait(DEADLINE_S)
        ended.set()
        return watch.at_s

    kept = KeptAside(look, 30.0, 20, watch)

    assert kept.get(0.0) is None
    may_end.set()
    assert ended.wait(DEADLINE_S)
    assert kept.get(DEADLINE_S) == 100.0
    may_end.clear()
    watch.at_s += 31
    assert kept.get(DEADLINE_S) == 100.0
    may_end.set()


def test_what_takes_long_is_looked_up_the_more_seldom(watch: Watch):
    """It never takes more than a twentieth of the time."""
    looks: list[float] = []

    def look() -> None:
        looks.append(watch.at_s)
        watch.at_s += 10

    kept = KeptAside(look, 30.0, 20, watch)
    for _ in range(500):
        kept.get(DEADLINE_S)
        kept._done.wait(DEADLINE_S)
        watch.at_s += 1

    assert [round((late - early) / 10) for early, late in pairwise(looks)] == [21] * (len(looks) - 1)


def test_what_takes_long_is_not_looked_up_because_somebody_clicked(watch: Watch):
    """What takes no time is."""
    looks: list[int] = []

    def look() -> None:
        watch.at_s += 5.0 * len(looks)  # the first takes no time
        looks.append(1)

    kept = KeptAside(look, 30.0, 20, watch)
    for _ in range(5):
        kept.forget()
        kept.get(DEADLINE_S)
        kept._done.wait(DEADLINE_S)

    assert len(looks) == 2


def test_a_look_that_fails_is_logged_without_its_words_and_made_again(watch: Watch):
    """Words of a database may quote a sale."""

    def look() -> None:
        raise psycopg.errors.QueryCanceled("peso_value 12.50")

    kept = KeptAside(look, 30.0, 20, watch)
    with capture_logs() as logs:
        assert kept.get(DEADLINE_S) is None

    assert [entry["error"] for entry in logs if entry["event"] == "trouble_not_counted"] == ["QueryCanceled"]
    assert "peso" not in str(logs)


def test_trouble_is_counted_per_device(fleet: Fleet, connection: psycopg.Connection):
    """Missing sales, those of a copied card, and what is held and not decided."""
    open_shops(connection, [Shop("pi-05", missing=17, forked=3, refused=2), Shop("pi-06")])
    connection.execute("update scout_edge.heads set lost = '{[3,6)}'")
    done = hold_line(connection, "pi-06", b"{", "not JSON")
    connection.execute(
        "update scout_bronze.quarantine set outcome = 'discarded', ended_at = now(), why = '-'"
        " where quarantine_id = %s",
        [done],
    )

    troubles = fleet.troubles()

    assert troubles is not None
    assert dict(troubles.by_device) == {"pi-05": Trouble(missing=17, forked=3, refused=2)}
    (missing,), (forked,) = troubles.missing, troubles.forked
    assert (missing.epoch, missing.sales, missing.runs, missing.lost_on_device) == (EPOCH, 17, 3, 3)
    assert (missing.first_seq, missing.last_seq) == (1, 17)
    assert (forked.sales, forked.first_seq, forked.last_seq) == (3, 1, 3)
    assert (troubles.refused_lines, troubles.refused_objects) == (2, 0)


def test_who_is_silent_is_told_as_everywhere_else(fleet: Fleet, connection: psycopg.Connection):
    """By the setting, and by what is usual for the shop: one that rests for days every week is no news."""
    open_shops(connection, [Shop("pi-05", heard_s=30 * HOUR_S), Shop("pi-06", heard_s=30 * HOUR_S), Shop("pi-07")])
    connection.execute(
        "insert into scout_edge.heartbeat_history select 'pi-06', date_trunc('hour', at, 'UTC'), at, '{}'"
        " from unnest(array[now() - interval '30 hours', now() - interval '80 hours']) as at"
    )

    assert {one.device.device_id for one in fleet.standings() if one.trouble.is_silent} == {"pi-05"}


def test_a_report_that_can_not_be_so_is_an_alarm(fleet: Fleet, connection: psycopg.Connection):
    """Until rows prove it."""
    open_shops(connection, [Shop("pi-05", is_implausible=True)])
    assert [one.first.name for one in fleet.standings()] == ["implausible"]

    connection.execute("update scout_edge.alarms set resolved_at = now()")
    fleet.forget()

    assert [one.first.name for one in fleet.standings()] == ["well"]


def test_what_was_changed_is_seen_at_once(fleet: Fleet, connection: psycopg.Connection):
    """Whoever acted sees what came of it."""
    open_shops(connection, [Shop("pi-05", refused=1)])
    assert [one.first.name for one in fleet.standings()] == ["refused"]
    connection.execute("update scout_bronze.quarantine set outcome = 'discarded', ended_at = now(), why = '-'")

    assert [one.first.name for one in fleet.standings()] == ["refused"]
    fleet.forget()
    assert [one.first.name for one in fleet.standings()] == ["well"]


def test_the_road_is_told_by_its_queues(fleet: Fleet, connection: psycopg.Connection):
    """What waits, for how long, and what failed; a load that failed makes no lag, for it waits by intent."""
    connection.execute(
        "insert into scout_bronze.files (bucket, key, device_id, state, found_at, tries)"
        " select 'b', 'k' || n, 'pi-05', 'found', now() - n * interval '1 minute', n - 1"
        " from generate_series(1, 3) as n"
    )
    connection.execute(
        "insert into scout_bronze.loads (committed_at, rows, error) values"
        " (now() - interval '1 day', 5, 'boom'), (now() - interval '20 s', 7, null)"
    )

    road = fleet.road()

    assert (road.objects_waiting, road.objects_retried, road.rows_waiting, road.loads_failed) == (3, 2, 12, 1)
    assert road.objects_oldest_s == pytest.approx(180, abs=5)
    assert road.rows_oldest_s == pytest.approx(20, abs=5)


def test_history_gives_the_age_that_the_oldest_sale_had_then(connection: psycopg.Connection):
    """By the device's own clock, however wrong that was."""
    open_shops(connection, [Shop("pi-05")])
    report = report_of(Shop("pi-05", oldest_s=600.0, waiting=9, clock_ahead_s=-1e7), 1.7e9)
    connection.execute(
        "insert into scout_edge.heartbeat_history values ('pi-05', date_trunc('hour', now(), 'UTC'), now(), %s)",
        [psycopg.types.json.Jsonb(report)],
    )

    (reported,) = reported_history(connection, "pi-05", 24)

    assert (reported.waiting_rows, reported.oldest_s) == (9, pytest.approx(600.0))


def test_five_thousand_devices_are_looked_up_in_a_moment(fleet: Fleet, connection: psycopg.Connection):
    """One query; a bound that a machine ten times slower keeps."""
    open_shops(connection, list(a_fleet(300)))
    connection.execute(
        "insert into scout_edge.devices (device_id, source) select 'x-' || n, 'x' from generate_series(1, 4700) as n"
    )
    connection.execute(
        "insert into scout_edge.heartbeats select 'x-' || n, now(), report from generate_series(1, 4700) as n,"
        " (select report from scout_edge.heartbeats limit 1) as any_report"
    )
    connection.execute("analyze")
    fleet.troubles()

    with connection.transaction():
        connection.execute("set local statement_timeout = '5s'")
        assert len(fleet.standings()) == 5000
