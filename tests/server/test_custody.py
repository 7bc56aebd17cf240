"""Where every seq is: in exactly one class, whatever the tables hold; and what keeps an audit from being clean."""

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, replace
from datetime import date
from uuid import UUID

import psycopg
import pytest
from deliveries import DEVICE, EPOCH, batch, foreign, name_of, posted, record
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg.rows import dict_row
from psycopg_pool import ConnectionPool

from server import audit as custody
from server import quarantine, tokens
from server.bronze import store
from server.database import transact
from server.etl import run_etl
from wire.record import to_line

OTHER_EPOCH = "00000000000000bb"
SEQS_MAX = 24


@dataclass(frozen=True)
class Tables:
    """What the database holds of one epoch."""

    head: int = 0
    raw: tuple[tuple[int, int], ...] = ()  # seq and which of several records at it
    quarantined: frozenset[int] = frozenset()
    retired: frozenset[int] = frozenset()
    unsettled: frozenset[int] = frozenset()
    lost: frozenset[int] = frozenset()
    accepted: frozenset[int] = frozenset()


def naive(tables: Tables) -> Counter[str]:
    """Ask for each seq in turn, as a person would."""
    bronze = {seq for seq, _ in tables.raw}
    counts: Counter[str] = Counter()
    for seq in range(1, tables.head + 1):
        classes = {
            "bronze": seq in bronze,
            "quarantined": seq in tables.quarantined,
            "retired": seq in tables.retired,
            "unsettled": seq in tables.unsettled and seq not in tables.lost,
            "accepted": seq in tables.accepted,
            "lost": seq in tables.lost,
            "missing": True,
        }
        counts[next(name for name, is_there in classes.items() if is_there)] += 1
    counts["above_head"] = sum(seq > tables.head for seq in bronze | tables.quarantined)
    return counts


def ranges(seqs: Collection[int]) -> str:
    """Write seqs as the database writes a multirange."""
    return "{" + ",".join(f"[{seq},{seq}]" for seq in sorted(seqs)) + "}"


def fill(connection: psycopg.Connection, tables: Tables, epoch: str = EPOCH) -> None:
    """Put it all into the database."""
    (file_id,) = connection.execute(
        "insert into scout_bronze.files (bucket, key, device_id, state) values ('t', %s, %s, 'loaded')"
        " returning file_id",
        [epoch, DEVICE],
    ).fetchone() or (0,)
    with connection.cursor() as cursor:
        cursor.executemany(
            "insert into scout_bronze.transactions_raw (load_id, device_id, epoch, seq, id, payload, object_key, line)"
            " values (1, %s, %s, %s, %s, '{}', 'k', 1)",
            [(DEVICE, epoch, seq, UUID(int=seq * 100 + fork)) for seq, fork in tables.raw],
        )
        cursor.executemany(
            "insert into scout_bronze.quarantine (file_id, kind, device_id, epoch, seq, reason, identity)"
            " values (%s, 'line', %s, %s, %s, 'r', %s)",
            [(file_id, DEVICE, epoch, seq, f"{epoch}{seq}".encode()) for seq in tables.quarantined],
        )
    connection.execute(
        "insert into scout_bronze.retired (device_id, epoch, seqs) values (%s, %s, %s)",
        [DEVICE, epoch, ranges(tables.retired)],
    )
    connection.execute(
        "insert into scout_edge.heads (device_id, epoch, head, unsettled, lost, first_heard_at, last_heard_at)"
        " values (%s, %s, %s, %s, %s, now(), now())",
        [DEVICE, epoch, tables.head, ranges(tables.unsettled), ranges(tables.lost)],
    )
    if tables.accepted:
        connection.execute(
            "insert into scout_bronze.accepted_gaps (device_id, epoch, seqs, why) values (%s, %s, %s, 'gone')",
            [DEVICE, epoch, ranges(tables.accepted)],
        )


@pytest.fixture
def known(connection: psycopg.Connection) -> psycopg.Connection:
    """A database that knows the device."""
    tokens.add_device(connection, DEVICE)
    return connection


def counted(connection: psycopg.Connection) -> dict[str, custody.EpochCustody]:
    """What the audit says of each epoch."""
    return {epoch.epoch: epoch for epoch in custody.audit(connection).epochs}


seqs = st.frozensets(st.integers(1, SEQS_MAX))
some_tables = st.builds(
    Tables,
    head=st.integers(1, SEQS_MAX),
    raw=st.frozensets(st.tuples(st.integers(1, SEQS_MAX), st.integers(0, 1))).map(lambda raw: tuple(sorted(raw))),
    quarantined=seqs,
    retired=seqs,
    unsettled=seqs,
    lost=seqs,
    accepted=seqs,
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(first=some_tables, second=some_tables)
def test_every_seq_is_in_exactly_one_class(known: psycopg.Connection, first: Tables, second: Tables) -> None:
    """As a naive count says, and the classes add up to the head, for two epochs that must not mix."""
    given_tables = {EPOCH: first, OTHER_EPOCH: second}
    found: dict[str, dict[str, object]] = {}
    listed: dict[str, list[tuple[int, int, bool, bool]]] = {EPOCH: [], OTHER_EPOCH: []}
    with known.transaction():
        for epoch, tables in given_tables.items():
            fill(known, tables, epoch)
        with known.cursor(row_factory=dict_row) as cursor:
            for row in cursor.execute("select * from scout_bronze.custody"):
                found[row["epoch"]] = row
        for gap in custody.list_gaps(known, device_id=None, accepted=True):
            listed[gap.epoch].append((gap.first_seq, gap.last_seq, gap.lost_on_device, gap.why is not None))
        raise psycopg.Rollback

    assert found.keys() == given_tables.keys()
    for epoch, tables in given_tables.items():
        expected = naive(tables)
        row = found[epoch]
        assert {name: row[name] for name in (*CLASSES, "above_head")} == {
            name: expected[name] for name in (*CLASSES, "above_head")
        }
        assert sum(int(str(row[name])) for name in CLASSES) == tables.head
        in_gaps = [seq for first_seq, last_seq, *_ in listed[epoch] for seq in range(first_seq, last_seq + 1)]
        assert len(in_gaps) == len(set(in_gaps)) == expected["missing"] + expected["lost"] + expected["accepted"]
        accepted = [last - first + 1 for first, last, _, is_accepted in listed[epoch] if is_accepted]
        assert sum(accepted) == expected["accepted"]


CLASSES = ("bronze", "quarantined", "retired", "unsettled", "accepted", "lost", "missing")

EVERYTHING = Tables(
    head=20,
    raw=((1, 0), (2, 0), (2, 1), (3, 0), (21, 0)),
    quarantined=frozenset({3, 4, 5}),
    retired=frozenset({1, 5, 6, 7}),
    unsettled=frozenset({7, 8, 9, 10, 22}),
    lost=frozenset({2, 10, 11, 12}),
    accepted=frozenset({1, 12, 13, 14}),
)


def test_each_class_is_counted_where_all_of_them_overlap(known: psycopg.Connection) -> None:
    """By hand: a seq that several could claim belongs to the first of them."""
    fill(known, EVERYTHING)
    audited = counted(known)[EPOCH]

    expected = {
        "bronze": 3,
        "quarantined": 2,
        "retired": 2,
        "unsettled": 2,
        "accepted": 3,
        "lost": 2,
        "missing": 6,
        "above_head": 1,
    }
    assert {name: getattr(audited, name) for name in expected} == expected == dict(naive(EVERYTHING))
    assert audited.is_whole
    assert audited.missing_runs == ((15, 20),)
    assert audited.lost_runs == ((10, 11),)


def test_a_count_that_does_not_add_up_is_a_problem(known: psycopg.Connection) -> None:
    """Twice or not at all: neither is passed over."""
    fill(known, EVERYTHING)
    found = custody.audit(known)
    (epoch,) = found.epochs

    for off in (replace(epoch, bronze=epoch.bronze + 1), replace(epoch, missing=epoch.missing - 1)):
        assert "epochs not counted once: 1" in replace(found, epochs=(off,)).problems()
    assert not any("counted once" in problem for problem in found.problems())


@pytest.fixture
def delivered(pool: ConnectionPool) -> ConnectionPool:
    """A database in which ten records, a foreign line and their silver are."""
    with pool.connection() as connection:
        tokens.add_device(connection, DEVICE)
        connection.execute(
            "insert into scout_edge.heads (device_id, epoch, head, unsettled, first_heard_at, last_heard_at)"
            " values (%s, %s, 10, '{}', now(), now())",
            [DEVICE, EPOCH],
        )
    deliver(pool, range(1, 11))
    transact(pool, lambda connection: store(connection, [foreign(b'{"transaction_id":"f"}')]))
    run_etl(pool)
    return pool


def deliver(pool: ConnectionPool, seqs: Collection[int], resend: int = 0) -> None:
    """Post a batch as a device does."""
    name, jsonl = batch(list(seqs))
    transact(pool, lambda connection: store(connection, [posted(name.again(resend), jsonl)]))


def do(pool: ConnectionPool, statement: str) -> None:
    """What somebody does by hand."""
    with pool.connection() as connection:
        connection.execute(statement.encode())


def problems(pool: ConnectionPool) -> list[str]:
    """What keeps the audit from being clean."""
    with pool.connection() as connection:
        return custody.audit(connection).problems()


def test_a_database_of_which_nothing_is_missing_is_clean(delivered: ConnectionPool) -> None:
    """Ledger, bronze, production and silver say the same, and rows that wait for the ETL are no fault."""
    assert problems(delivered) == []
    deliver(delivered, [11, 12])
    assert problems(delivered) == []

    with delivered.connection() as connection:
        found = custody.audit(connection)
    (day,) = found.sums
    assert (day.ledger, day.bronze, day.waiting, day.edge, day.production, day.silver) == (13, 13, 2, 11, 11, 11)
    assert [epoch.above_head for epoch in found.epochs] == [2]


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        (
            "delete from scout_bronze.transactions_raw where seq in (3, 4)",
            ["missing sales: 2", "days whose sums don't meet: 1"],
        ),
        ("delete from scout_bronze.transactions_raw where identity is not null", ["days whose sums don't meet: 1"]),
        ("delete from scout.bronze_edge_raw where seq = 5", ["days whose sums don't meet: 1"]),
        ("delete from scout.bronze_transactions_raw where seq = 5", ["days whose sums don't meet: 1"]),
        ("delete from scout.silver_edge_events where seq = 5", ["days whose sums don't meet: 1"]),
        ("update scout_edge.heads set head = 12", ["missing sales: 2"]),
        ("update scout_edge.heads set lost = '{[11,11]}', head = 11", ["missing sales: 1"]),
        ("update scout_edge.heads set unsettled = '{[11,12]}', head = 12", []),
        (
            "insert into scout_edge.alarms (device_id, kind, detail) values ('pi-05', 'head_jumped', 'd')",
            ["open alarms: 1"],
        ),
        (
            "insert into scout_edge.heartbeats values ('pi-05', now() - interval '25 hours', '{}')",
            ["silent devices: 1"],
        ),
    ],
)
def test_whatever_is_taken_away_or_claimed_is_seen(delivered: ConnectionPool, statement: str, said: list[str]) -> None:
    """In words that say which it is."""
    do(delivered, statement)

    assert problems(delivered) == said


def test_a_line_that_was_replayed_out_of_quarantine_is_counted_once(delivered: ConnectionPool) -> None:
    """In its batch's day, also when rows of the batch were lost and came again."""
    good = to_line(record(11))
    jsonl = good.replace(b"150.50", b"NaN") + b"\n" + to_line(record(12)) + b"\n"
    held = posted(name_of(jsonl, 11, 12), jsonl)
    transact(delivered, lambda connection: store(connection, [held]))
    do(delivered, "update scout_edge.heads set head = 12")
    assert problems(delivered) == []
    with delivered.connection() as connection:
        (line,) = quarantine.list_held(connection, device_id=DEVICE, ended=False, limit=9)

    quarantine.replay(delivered, line.quarantine_id, good)
    assert problems(delivered) == []
    do(delivered, "delete from scout_bronze.transactions_raw where seq = 12")
    do(delivered, "update scout_bronze.files set state = 'gone' where first_seq = 11")
    transact(delivered, lambda connection: store(connection, [held]))

    assert problems(delivered) == []
    with delivered.connection() as connection:
        (epoch,) = custody.audit(connection).epochs
    assert (epoch.bronze, epoch.quarantined) == (12, 0)


def test_rows_that_were_delivered_and_are_accepted_as_lost_are_missing_nowhere(delivered: ConnectionPool) -> None:
    """The ledger had them; the sums meet all the same."""
    do(delivered, "delete from scout_bronze.transactions_raw where seq in (2, 3)")
    with delivered.connection() as connection:
        custody.accept_gap(connection, DEVICE, EPOCH, (2, 3), "by hand")

    assert problems(delivered) == []


def test_the_alarm_of_a_revoked_device_is_over(delivered: ConnectionPool) -> None:
    """It can't take back what it said."""
    do(delivered, "insert into scout_edge.alarms (device_id, kind, detail) values ('pi-05', 'head_jumped', 'd')")
    do(delivered, "update scout_edge.devices set revoked_at = now()")

    assert problems(delivered) == []


def test_forks_are_listed_and_keep_nothing_from_being_clean(delivered: ConnectionPool) -> None:
    """All records of a copied spool are in bronze: there is nothing to do about them."""
    do(
        delivered,
        "insert into scout_bronze.forks (device_id, epoch, seq, id, first_id)"
        " select 'pi-05', '00000000000000aa', seq, gen_random_uuid(), gen_random_uuid()"
        " from unnest('{3,4,7}'::int[]) seq",
    )
    with delivered.connection() as connection:
        found = custody.audit(connection)

    assert [(fork.runs, fork.records) for fork in found.forks] == [(((3, 4), (7, 7)), 3)]
    assert found.problems() == []


def test_a_device_or_a_day_can_be_asked_for_alone(delivered: ConnectionPool) -> None:
    """Another device's gap is none of this one's, and what was last heard before is left out."""
    do(
        delivered,
        "insert into scout_edge.devices (device_id, source) values ('pi-06', 'pi-06');"
        "insert into scout_edge.heads (device_id, epoch, head, unsettled, first_heard_at, last_heard_at)"
        " values ('pi-06', '00000000000000aa', 5, '{}', '2026-01-02', '2026-01-02')",
    )
    with delivered.connection() as connection:
        all_of_it = custody.audit(connection)
        one = custody.audit(connection, device_id=DEVICE)
        other = custody.audit(connection, device_id="pi-06")
        since = custody.audit(connection, since=date(2026, 1, 3))

    assert all_of_it.problems() == other.problems() == ["missing sales: 5"]
    assert one.problems() == since.problems() == []
    assert [epoch.device_id for epoch in since.epochs] == [DEVICE]
    assert (len(one.sums), len(other.sums)) == (1, 0)


def test_what_is_accepted_is_what_was_missing_and_arrives_all_the_same(delivered: ConnectionPool) -> None:
    """In parts, once each, visible for ever while it is missing; gone from the list once it is filled."""
    do(delivered, "update scout_edge.heads set head = 20, lost = '{[19,20]}'")
    with delivered.connection() as connection:
        part = custody.accept_gap(connection, DEVICE, EPOCH, (8, 13), "the card is gone")
        rest = custody.accept_gap(connection, DEVICE, EPOCH, (1, 99), "all of it")
        with pytest.raises(custody.NothingMissing, match="gaps list"):
            custody.accept_gap(connection, DEVICE, EPOCH, (1, 99), "once more")
        with pytest.raises(custody.NothingMissing):
            custody.accept_gap(connection, "pi-99", EPOCH, (1, 99), "nobody")
        unaccepted = custody.list_gaps(connection, device_id=None, accepted=False)
        accepted = custody.list_gaps(connection, device_id=DEVICE, accepted=True)

    assert (part, rest) == (3, 7)
    assert unaccepted == []
    assert [(gap.first_seq, gap.last_seq, gap.lost_on_device, gap.why) for gap in accepted] == [
        (11, 13, False, "the card is gone"),
        (14, 18, False, "all of it"),
        (19, 20, True, "all of it"),
    ]
    assert problems(delivered) == []
    deliver(delivered, range(11, 17))
    with delivered.connection() as connection:
        left = custody.list_gaps(connection, device_id=None, accepted=True)
    assert [(gap.first_seq, gap.last_seq) for gap in left] == [(17, 18), (19, 20)]


@pytest.mark.parametrize(("minutes", "missing"), [(59, 0), (61, 3)])
def test_what_a_new_card_does_not_answer_for_is_missing(known: psycopg.Connection, minutes: int, missing: int) -> None:
    """A device that calls home, and for an hour says nothing of an epoch that it had sales of, has them no more."""
    fill(known, Tables(head=10, raw=tuple((seq, 0) for seq in range(1, 8)), unsettled=frozenset({8, 9, 10})))
    known.execute("update scout_edge.heads set last_heard_at = now() - %s * interval '1 minute'", [minutes])
    assert counted(known)[EPOCH].unsettled == 3, "a device that is silent still answers for them"
    known.execute("insert into scout_edge.heartbeats values (%s, now(), '{}')", [DEVICE])

    found = counted(known)[EPOCH]

    assert (found.missing, found.unsettled) == (missing, 3 - missing)


def test_a_shop_that_is_offline_every_weekend_is_no_news(known: psycopg.Connection) -> None:
    """Silent is who is silent for longer than allowed and than usual; a revoked device may be."""
    tokens.add_device(known, "pi-06")
    tokens.add_device(known, "pi-07")
    tokens.add_device(known, "pi-08")
    known.execute(
        "insert into scout_edge.heartbeats select device_id, now() - interval '50 hours', '{}' from scout_edge.devices"
        " where device_id <> 'pi-08'"
    )
    known.execute(
        "insert into scout_edge.heartbeat_history select 'pi-06', date_trunc('hour', at, 'UTC'), at, '{}'"
        " from unnest(array[now() - interval '50 hours', now() - interval '112 hours']) at"
    )
    known.execute("update scout_edge.devices set revoked_at = now() where device_id = 'pi-07'")

    assert [device.device_id for device in custody.silent_devices(known)] == [DEVICE]
    known.execute("update scout_edge.heartbeats set heard_at = heard_at - interval '13 hours'")
    known.execute("update scout_edge.heartbeat_history set heard_at = heard_at - interval '13 hours'")
    assert [device.device_id for device in custody.silent_devices(known)] == [DEVICE, "pi-06"]
    known.execute("update scout_edge.settings set silent_after_h = 64")
    assert custody.silent_devices(known) == []


@pytest.mark.parametrize("rows", ['"many"', "1e400", "-7.5", "null", "[]"])
def test_no_report_keeps_the_others_from_being_audited(known: psycopg.Connection, rows: str) -> None:
    """A device controls its report: what makes no sense in it is not said."""
    known.execute(
        "insert into scout_edge.heartbeats values (%s, now(), jsonb_build_object('waiting_rows', %s::jsonb))",
        [DEVICE, rows],
    )

    said = custody.audit(known).said[DEVICE]

    assert 0 <= said.waiting <= 10**12
    assert (said.accepted, said.set_aside) == (0, 0)
