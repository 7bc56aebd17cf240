"""The landing table: each transaction once, each line counted once, ledger and rows together."""

from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from threading import Event

import psycopg
import pytest
from deliveries import DAY, DEVICE, EPOCH, batch, foreign, jsonl_of, name_of, posted, record
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg_pool import ConnectionPool

from server.bronze import Landed, Outcome, land, quarantine_object, staging, store
from server.bucket import BucketUnavailable
from server.database import transact
from server.expanding import Unreadable
from server.lines import HEAD_BYTES
from server.reading import LINE_BYTES_MAX, Content, Delivery, Line, Refused, Whole, read_object
from wire.receipt import RejectedLine
from wire.record import to_line

LEDGER = "select state, lines, accepted, duplicates, rejected from scout_bronze.files order by file_id"
RAW = "select epoch, seq, payload from scout_bronze.transactions_raw order by device_id, epoch, seq, id, raw_id"


def stored(connection: psycopg.Connection, *deliveries: Delivery) -> list[Outcome]:
    """Store in a transaction of its own."""
    with connection.transaction():
        return store(connection, deliveries)


def counts(outcomes: Sequence[Outcome]) -> list[tuple[int, int, int]]:
    """Give the three counts of each outcome."""
    return [(outcome.accepted, outcome.duplicates, len(outcome.rejected)) for outcome in outcomes]


def rows(connection: psycopg.Connection, query: str) -> list[tuple[object, ...]]:
    """Read all rows."""
    return connection.execute(query.encode()).fetchall()


def settled(connection: psycopg.Connection, key: str, device_id: str = DEVICE) -> bool:
    """Ask what the heartbeat asks."""
    return connection.execute("select scout_bronze.is_settled(%s, %s)", [device_id, key]).fetchone() == (True,)


def bad_batch() -> Delivery:
    """Make a batch of three records of which the second is no JSON."""
    lines = [to_line(record(seq)) for seq in (1, 2, 3)]
    lines[1] = b'{"seq":2,broken'
    jsonl = b"\n".join(lines) + b"\n"
    return posted(name_of(jsonl, 1, 3), jsonl)


def test_a_batch_lands_byte_for_byte_with_its_ledger_row_and_load(connection: psycopg.Connection) -> None:
    """Rows, ledger row and load say the same."""
    payload = rb'{"transaction_id":"t-1", "peso_value":150.50,"note":"\u0000\t\\ \"", "a":1,"a":2}'
    extra = b'{"till":"\\\\N"}'
    jsonl = jsonl_of([replace(record(1, payload), extra=extra), record(2)])

    assert counts(stored(connection, posted(name_of(jsonl, 1, 2), jsonl))) == [(2, 0, 0)]
    assert rows(connection, RAW) == [(EPOCH, 1, payload.decode()), (EPOCH, 2, record(2).payload.decode())]
    raw = rows(
        connection,
        "select device_id, id::text, captured_at, clock, boot, mono_ms, extra, line, object_key, load_id "
        "from scout_bronze.transactions_raw where seq = 1",
    )
    key = name_of(jsonl, 1, 2).key
    (load,) = rows(connection, "select load_id, rows from scout_bronze.loads")
    at = datetime(2026, 1, 20, 10, 30, tzinfo=UTC)
    assert raw == [(DEVICE, record(1).id, at, "synced", "b0075", 1001, extra.decode(), 1, key, load[0])]
    assert load[1] == 2
    ledger = "select state, batch, resend, epoch, first_seq, last_seq, bytes, load_id from scout_bronze.files"
    assert rows(connection, ledger) == [("loaded", key, 0, EPOCH, 1, 2, len(jsonl), load[0])]


def test_nothing_is_left_of_a_transaction_that_ends_badly(connection: psycopg.Connection) -> None:
    """Rows and ledger come together or not at all."""
    delivery = bad_batch()
    with connection.transaction(force_rollback=True):
        assert counts(store(connection, [delivery])) == [(2, 0, 1)]

    for table in ("files", "transactions_raw", "quarantine", "loads"):
        assert rows(connection, f"table scout_bronze.{table}") == []
    assert counts(stored(connection, delivery)) == [(2, 0, 1)]


def test_a_batch_sent_again_is_answered_from_the_ledger(connection: psycopg.Connection) -> None:
    """The repeat changes nothing and makes no load."""
    delivery = bad_batch()
    first = stored(connection, delivery)
    ledger = rows(connection, LEDGER)

    assert counts(first) == [(2, 0, 1)]
    assert counts(stored(connection, delivery)) == [(0, 2, 1)]
    assert rows(connection, LEDGER) == ledger == [("loaded", 3, 2, 0, 1)]
    assert len(rows(connection, "table scout_bronze.loads")) == 1


def test_a_batch_by_endpoint_and_by_bucket_is_held_once(connection: psycopg.Connection) -> None:
    """Each path has its ledger row; the rows are there once, and the batch is settled."""
    name, jsonl = batch(range(1, 4))
    by_bucket = replace(posted(name, jsonl), bucket="scout-ingest", version="v1")

    assert counts(stored(connection, posted(name, jsonl))) == [(3, 0, 0)]
    assert counts(stored(connection, by_bucket)) == [(0, 3, 0)]
    assert rows(connection, LEDGER) == [("loaded", 3, 3, 0, 0), ("loaded", 3, 0, 3, 0)]
    assert settled(connection, name.key)


def test_the_same_key_with_another_body_is_a_conflict(connection: psycopg.Connection) -> None:
    """Nothing of the second body is stored, nor of another device's under the same key."""
    first, second = foreign(b'{"a":1}'), foreign(b'{"a":2}')
    other_device = foreign(b'{"a":1}', device_id="pi-06")

    assert [outcome.conflict for outcome in stored(connection, first)] == [False]
    outcomes = stored(connection, second, other_device, first)
    assert [outcome.conflict for outcome in outcomes] == [True, True, False]
    assert len(rows(connection, RAW)) == 1


def test_one_key_with_two_bodies_in_one_store_takes_the_first(connection: psycopg.Connection) -> None:
    """Company in a transaction changes no answer."""
    first, second = foreign(b'{"a":1}'), foreign(b'{"a":2}')

    outcomes = stored(connection, first, second, first)
    assert [outcome.conflict for outcome in outcomes] == [False, True, False]
    assert counts(outcomes) == [(1, 0, 0), (0, 0, 0), (0, 1, 0)]


def test_duplicates_within_and_between_deliveries_are_counted(connection: psycopg.Connection) -> None:
    """Of each transaction the first copy is accepted, whichever delivery it came in."""
    sale, other = b'{"transaction_id":"t-1"}', b'{"transaction_id":"t-2"}'
    one = foreign(b"\n".join([sale, sale, b"{"]), key="one")
    two = foreign(b"\n".join([sale, other, other, b"{"]), key="two")

    assert counts(stored(connection, one, two)) == [(1, 1, 1), (1, 2, 1)]
    assert rows(connection, LEDGER) == [("loaded", 3, 1, 1, 1), ("loaded", 4, 1, 2, 1)]
    assert len(rows(connection, RAW)) == 2


def test_the_same_sale_of_two_devices_is_two(connection: psycopg.Connection) -> None:
    """Two tills that both count 1, 2, 3 sell different things."""
    sale = b'{"transaction_id":"t-1"}'
    outcomes = stored(connection, foreign(sale, key="a"), foreign(sale, key="b", device_id="pi-06"))

    assert counts(outcomes) == [(1, 0, 0), (1, 0, 0)]


def test_a_second_id_at_one_seq_is_stored_too(connection: psycopg.Connection) -> None:
    """A copied spool sells on from two places: both sales are held."""
    first, second = jsonl_of([record(1)]), jsonl_of([record(1, fork=1)])
    outcomes = stored(connection, posted(name_of(first, 1, 1), first), posted(name_of(second, 1, 1), second))

    assert counts(outcomes) == [(1, 0, 0), (1, 0, 0)]
    assert len(rows(connection, RAW)) == 2


def test_a_refused_line_is_held_once_and_rejected_each_time(connection: psycopg.Connection) -> None:
    """The quarantine keeps the bytes; every sender hears line and reason."""
    lines = [to_line(record(1)), b'{"seq":2,broken']
    jsonl = b"\n".join(lines) + b"\n"
    name = name_of(jsonl, 1, 2)
    outcomes = [
        *stored(connection, posted(name, jsonl)),
        *stored(connection, posted(name.again(1), jsonl)),
        *stored(connection, foreign(b"{", key="a"), foreign(b"{", key="a"), foreign(b"{", key="b")),
    ]

    assert [outcome.rejected[0].line for outcome in outcomes] == [2, 2, 1, 1, 1]
    assert outcomes[0].rejected == (RejectedLine(2, posted(name, jsonl).refused[0].reason),)
    held = "select kind, device_id, epoch, seq, line, raw from scout_bronze.quarantine order by quarantine_id"
    assert rows(connection, held)[0] == ("line", DEVICE, EPOCH, 2, 2, lines[1])
    assert len(rows(connection, held)) == 3


def content(lines: Sequence[Line | Refused | Whole], broken: str = "", key: str = "a") -> Content:
    """Make a content that yields these lines, and then turns out to be unreadable if `broken` says why."""

    def reading() -> Iterator[Line | Refused | Whole]:
        yield from lines
        if broken:
            raise Unreadable(broken)

    return Content(f"{DAY}/{DEVICE}/{key}.jsonl", DEVICE, None, reading())


def test_what_turns_out_to_be_unreadable_leaves_nothing_and_harms_no_other(connection: psycopg.Connection) -> None:
    """Though all its lines, good and bad ones, were staged between those of its neighbours."""
    before, broken, after = (
        foreign(b'{"transaction_id":"%s"}\n{' % key, key=key.decode()) for key in (b"a", b"b", b"c")
    )
    files = "insert into scout_bronze.files (bucket, key, device_id, state) values ('b', %s, 'pi-05', 'found')"
    first, second, third = (
        connection.execute(files + " returning file_id", [key]).fetchone() or (0,) for key in ("a", "b", "c")
    )
    with connection.transaction():
        with staging(connection) as staged:
            staged.take(first[0], before.content)
            with pytest.raises(Unreadable, match="cut off"):
                staged.take(second[0], content([*broken.lines, *broken.refused], "cut off"))
            staged.take(third[0], after.content)
        landed = land(connection, staged)

    assert landed == {first[0]: Landed(1, 0, 1), third[0]: Landed(1, 0, 1)}
    payloads = [payload for _, _, payload in rows(connection, RAW)]
    assert payloads == ['{"transaction_id":"a"}', '{"transaction_id":"c"}']
    assert rows(connection, "select file_id from scout_bronze.quarantine order by 1") == [first, third]
    states = [("loaded",), ("found",), ("loaded",)]
    assert rows(connection, "select state from scout_bronze.files order by file_id") == states


def test_where_all_is_unreadable_nothing_happens(connection: psycopg.Connection) -> None:
    """No load, no row."""
    delivery = foreign(b'{"transaction_id":"a"}')
    with connection.transaction():
        with staging(connection) as staged, pytest.raises(Unreadable):
            staged.take(1, content(delivery.lines, "cut off"))
        assert land(connection, staged) == {}

    assert rows(connection, RAW) == rows(connection, "table scout_bronze.loads") == []


def test_a_fault_in_the_middle_of_a_content_is_raised_as_it_is(connection: psycopg.Connection) -> None:
    """It ends the transaction; the connection goes on."""

    def reading() -> Iterator[Line | Refused | Whole]:
        yield from foreign(b'{"transaction_id":"a"}').lines
        raise BucketUnavailable("the line is down")

    with (
        pytest.raises(BucketUnavailable, match="the line is down"),
        connection.transaction(),
        staging(connection) as staged,
    ):
        staged.take(1, Content("a", DEVICE, None, reading()))

    assert counts(stored(connection, foreign(b'{"transaction_id":"b"}'))) == [(1, 0, 0)]


def test_refused_lines_are_held_in_any_number(connection: psycopg.Connection) -> None:
    """Also where two objects hold the same, in one transaction, in whatever order."""
    bad = b"\n".join(b"{%d" % number for number in range(5000))
    again = replace(foreign(bad), version="2")

    assert counts(stored(connection, foreign(bad), again)) == [(0, 0, 5000)] * 2
    assert rows(connection, "select count(*) from scout_bronze.quarantine") == [(5000,)]


def test_two_overlong_lines_with_one_beginning_are_both_held(connection: psycopg.Connection) -> None:
    """Of such a line the beginning is held; the ledger row leads to the object that has the rest."""
    long = b"x" * (LINE_BYTES_MAX + 1)
    deliveries = [
        read_object(f"{DAY}/{DEVICE}/a.jsonl", body, bucket="b", version=str(number))
        for number, body in enumerate((long, long + b"x", long))
    ]

    assert counts(stored(connection, *deliveries)) == [(0, 0, 1)] * 3
    assert rows(connection, "select length(raw) from scout_bronze.quarantine") == [(HEAD_BYTES,)] * 2


def test_an_empty_file_has_a_ledger_row_and_no_load(connection: psycopg.Connection) -> None:
    """It was read; there was nothing in it."""
    assert counts(stored(connection, foreign(b""))) == [(0, 0, 0)]
    assert rows(connection, LEDGER) == [("loaded", 0, 0, 0, 0)]
    assert rows(connection, "table scout_bronze.loads") == []


def test_a_store_of_nothing_does_nothing(connection: psycopg.Connection) -> None:
    """An empty group is no error."""
    assert stored(connection) == []


def test_several_stores_in_one_transaction_keep_their_lines_apart(connection: psycopg.Connection) -> None:
    """What the first one staged is not counted by the second."""
    with connection.transaction():
        first = store(connection, [foreign(b'{"transaction_id":"t-1"}', key="a")])
        second = store(connection, [foreign(b'{"transaction_id":"t-2"}', key="b")])

    assert counts([*first, *second]) == [(1, 0, 0), (1, 0, 0)]


def test_storing_many_times_on_one_connection_works(connection: psycopg.Connection) -> None:
    """Beyond the number of runs at which the driver prepares its statements."""
    outcomes = [outcome for n in range(12) for outcome in stored(connection, foreign(b'{"n":%d}' % n, key=f"k{n}"))]

    assert counts(outcomes) == [(1, 0, 0)] * 12


def test_two_posts_of_one_key_at_once_are_one_and_a_repeat(pool: ConnectionPool) -> None:
    """The second waits for the first, then answers from its ledger row."""
    delivery, stored_first, waited = posted(*batch(range(1, 4))), Event(), Event()

    def first(connection: psycopg.Connection) -> list[Outcome]:
        outcomes = store(connection, [delivery])
        stored_first.set()
        with pool.connection() as watcher:
            while not rows(watcher, "select 1 from pg_stat_activity where wait_event_type = 'Lock'"):
                assert not waited.is_set(), "the second did not wait"
        return outcomes

    def second(connection: psycopg.Connection) -> list[Outcome]:
        assert stored_first.wait(30)
        outcomes = store(connection, [delivery])
        waited.set()
        return outcomes

    with ThreadPoolExecutor(2) as threads:
        outcomes = [threads.submit(transact, pool, work) for work in (first, second)]

    assert [counts(each.result()) for each in outcomes] == [[(3, 0, 0)], [(0, 3, 0)]]


def test_transactions_in_crossed_orders_do_not_deadlock(pool: ConnectionPool) -> None:
    """Whatever the order of deliveries and lines, each transaction goes in key order."""
    sales = [b'{"transaction_id":"t-%d"}' % number for number in range(40)]

    def run(worker: int) -> int:
        order = sales if worker % 2 else sales[::-1]
        deliveries = [foreign(sale, key=f"{worker}/{place}") for place, sale in enumerate(order)]
        deliveries.append(foreign(b"\n".join([*order, b"{"]), key=f"{worker}/all"))
        with pool.connection() as connection:  # not begun again: a deadlock would fail here
            return sum(outcome.accepted for outcome in stored(connection, *deliveries))

    with ThreadPoolExecutor(6) as threads:
        accepted = list(threads.map(run, range(18)))

    assert sum(accepted) == len(sales)


def test_a_transaction_that_commits_late_is_not_missed(pool: ConnectionPool) -> None:
    """Its load appears when it commits, though later ones came and went before."""
    with pool.connection() as slow, pool.connection() as quick:
        with slow.transaction():
            store(slow, [foreign(b'{"transaction_id":"late"}', key="late")])
            stored(quick, foreign(b'{"transaction_id":"quick"}', key="quick"))
            (seen,) = rows(quick, "delete from scout_bronze.loads returning load_id")
        (late,) = rows(quick, "select load_id from scout_bronze.loads")
        payloads = "select payload from scout_bronze.transactions_raw where load_id = "

        assert late < seen
        assert rows(quick, payloads + str(late[0])) == [('{"transaction_id":"late"}',)]


def test_an_object_that_cannot_be_read_is_held_against_it(connection: psycopg.Connection) -> None:
    """It has a ledger row and a quarantine row, once, and covers nothing."""
    name, _ = batch(range(1, 4))
    for _ in range(2):
        quarantine_object(
            connection, bucket="scout-ingest", key=name.key, version="1", device_id=DEVICE, reason="it is cut off"
        )

    assert rows(connection, "select state, reason, batch from scout_bronze.files") == [
        ("quarantined", "it is cut off", name.key)
    ]
    assert rows(connection, "select kind, reason from scout_bronze.quarantine") == [("object", "it is cut off")]
    assert not settled(connection, name.key)


def test_what_was_loaded_is_never_quarantined_afterwards(connection: psycopg.Connection) -> None:
    """The ledger does not lose what it settled."""
    name, jsonl = batch(range(1, 4))
    stored(connection, posted(name, jsonl))
    quarantine_object(connection, bucket="endpoint", key=name.key, version="", device_id=DEVICE, reason="late")

    assert settled(connection, name.key)
    assert rows(connection, "table scout_bronze.quarantine") == []


def test_a_quarantined_object_that_arrives_whole_is_loaded(connection: psycopg.Connection) -> None:
    """A refusal is not for ever."""
    name, jsonl = batch(range(1, 4))
    quarantine_object(connection, bucket="endpoint", key=name.key, version="", device_id=DEVICE, reason="cut off")

    assert counts(stored(connection, posted(name, jsonl))) == [(3, 0, 0)]
    assert settled(connection, name.key)


def test_a_batch_is_settled_by_its_copy_and_by_nothing_else(connection: psycopg.Connection) -> None:
    """Asked by its own name or a copy's; another batch, device or content is not it."""
    name, jsonl = batch(range(1, 4))
    stored(connection, posted(name.again(3), jsonl))
    others = [
        batch(range(1, 3))[0],
        batch(range(1, 4), epoch="00000000000000bb")[0],
        replace(name, hash="0" * 16),
        replace(name, day=DAY.replace(day=21)),
    ]

    assert settled(connection, name.key)
    assert settled(connection, name.again(7).key)
    assert not settled(connection, name.key, "pi-06")
    assert not any(settled(connection, other.key) for other in others)
    assert not settled(connection, "nonsense")


def test_an_opaque_key_settles_nothing(connection: psycopg.Connection) -> None:
    """What others upload is no batch, whatever it is called."""
    key = f"{DAY}/{DEVICE}/data.jsonl"
    stored(connection, foreign(b'{"a":1}', key=key))

    assert not settled(connection, key)


def test_asking_whether_a_batch_is_settled_reads_one_index_entry(connection: psycopg.Connection) -> None:
    """The cost does not follow the length of the ledger."""
    connection.execute(
        "insert into scout_bronze.files (bucket, key, device_id, batch, state) "
        "select 'b', n::text, 'pi-05', n::text, 'loaded' from generate_series(1, 20000) as n"
    )
    connection.execute("analyze scout_bronze.files")
    with connection.transaction():
        assert settled(connection, "17")
        scans = "select seq_scan, idx_scan, idx_tup_fetch from pg_stat_xact_user_tables where relname = 'files'"
        assert rows(connection, scans) == [(0, 1, 1)]


def head(connection: psycopg.Connection, at: int, unsettled: str = "{}", device_id: str = DEVICE) -> None:
    """Let a device report its head."""
    connection.execute(
        "insert into scout_edge.devices (device_id, source) values (%s, %s) on conflict do nothing",
        [device_id, device_id],
    )
    connection.execute(
        "insert into scout_edge.heads values (%s, %s, %s, %s, now(), now()) on conflict (device_id, epoch) "
        "do update set head = excluded.head, unsettled = excluded.unsettled",
        [device_id, EPOCH, at, unsettled],
    )


GAPS = "select first_seq, last_seq, seqs from scout_bronze.gaps order by device_id, epoch, first_seq"


def test_gaps_are_what_is_neither_held_nor_reported(connection: psycopg.Connection) -> None:
    """Raw, quarantined and retired seqs are held; unsettled ones are the device's; the rest is missing."""
    stored(connection, posted(*batch(range(3, 6))), posted(*batch(range(8, 9))))
    jsonl = b"broken\n"
    stored(connection, posted(name_of(jsonl, 10, 10), jsonl))
    connection.execute("insert into scout_bronze.retired values (%s, %s, '{[12,14)}')", [DEVICE, EPOCH])
    head(connection, 20, "{[15,17)}")

    assert rows(connection, GAPS) == [(1, 2, 2), (6, 7, 2), (9, 9, 1), (11, 11, 1), (14, 14, 1), (17, 20, 4)]


def test_a_head_of_which_nothing_arrived_is_all_gap(connection: psycopg.Connection) -> None:
    """However high it is; a head of 0 is none."""
    head(connection, 999_999_999_999)
    head(connection, 0, device_id="pi-06")

    assert rows(connection, GAPS) == [(1, 999_999_999_999, 999_999_999_999)]


def test_rows_beyond_the_head_and_forks_are_no_gap(connection: psycopg.Connection) -> None:
    """More than was reported, or a seq held twice, is not less."""
    fork = jsonl_of([record(1, fork=1)])
    stored(connection, posted(*batch(range(1, 6))), posted(name_of(fork, 1, 1), fork))
    head(connection, 3)

    assert rows(connection, GAPS) == []


def test_rows_deleted_by_hand_are_a_gap_whatever_the_ledger_says(connection: psycopg.Connection) -> None:
    """Gaps are proven from the rows."""
    stored(connection, posted(*batch(range(1, 6))))
    head(connection, 5)
    connection.execute("delete from scout_bronze.transactions_raw where seq = 3")

    assert rows(connection, GAPS) == [(3, 3, 1)]


LOST = "select first_seq, last_seq, seqs, lost_on_device from scout_bronze.gaps order by first_seq"


def test_what_the_device_lost_is_a_gap_with_its_reason(connection: psycopg.Connection) -> None:
    """Beside gaps that nobody explains, and even within a run for which the device still answers."""
    stored(connection, posted(*batch(range(1, 4))))
    head(connection, 20, "{[10,21)}")
    connection.execute("update scout_edge.heads set lost = '{[2,6),[12,14)}'")

    assert rows(connection, LOST) == [(4, 5, 2, True), (6, 9, 4, False), (12, 13, 2, True)]


def test_a_lost_seq_that_arrives_after_all_is_no_gap(connection: psycopg.Connection) -> None:
    """From a stick or a salvaged card: held is held, in line quarantine or retired too."""
    head(connection, 9)
    connection.execute("update scout_edge.heads set lost = '{[1,10)}'")
    assert rows(connection, LOST) == [(1, 9, 9, True)]
    stored(connection, posted(*batch(range(3, 6))))
    jsonl = b"broken\n"
    stored(connection, posted(name_of(jsonl, 7, 7), jsonl))
    connection.execute("insert into scout_bronze.retired values (%s, %s, '{[9,10)}')", [DEVICE, EPOCH])

    assert rows(connection, LOST) == [(1, 2, 2, True), (6, 6, 1, True), (8, 8, 1, True)]


def test_gaps_of_one_device_read_that_devices_index_entries(connection: psycopg.Connection) -> None:
    """The cost does not follow the size of the fleet."""
    connection.execute(
        "insert into scout_bronze.transactions_raw (load_id, device_id, epoch, seq, id, payload, object_key, line) "
        "select 1, 'pi-' || d, %s, n, gen_random_uuid(), '{}', 'k', n "
        "from generate_series(1, 100) as d, generate_series(1, 100) as n",
        [EPOCH],
    )
    for device in range(1, 101):
        head(connection, 100, device_id=f"pi-{device}")
    connection.execute("vacuum analyze scout_bronze.transactions_raw")
    plan = str(rows(connection, "explain select * from scout_bronze.gaps where device_id = 'pi-7'"))

    assert "transactions_raw_record" in plan
    assert "Seq Scan on transactions_raw" not in plan
    assert "Seq Scan on heads" not in plan or "device_id = 'pi-7'" in plan


cuts = st.lists(st.tuples(st.integers(1, 12), st.integers(1, 12)), min_size=1, max_size=8)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cuts, st.lists(st.integers(0, 7), max_size=12), st.sampled_from(["endpoint", "scout-ingest"]))
def test_any_split_repeated_in_any_order_gives_the_set(
    connection: psycopg.Connection, runs: list[tuple[int, int]], repeats: list[int], bucket: str
) -> None:
    """However records are divided over objects, and however often these come, bronze is the set of them."""
    connection.execute(
        "truncate scout_bronze.transactions_raw, scout_bronze.files, scout_bronze.loads, scout_bronze.quarantine"
    )
    batches = [batch(range(min(run), max(run) + 1)) for run in runs]
    order = [*range(len(batches)), *(number % len(batches) for number in repeats)]
    deliveries = [posted(*batches[number], bucket=bucket) for number in order]
    half = len(deliveries) // 2
    outcomes = stored(connection, *deliveries[:half]) + stored(connection, *deliveries[half:])

    seqs = {seq for first, last in map(sorted, runs) for seq in range(first, last + 1)}
    assert Counter(seq for _, seq, _ in rows(connection, RAW)) == Counter(seqs)
    assert sum(outcome.accepted for outcome in outcomes) == len(seqs)
    assert all(
        outcome.accepted + outcome.duplicates == len(delivery.lines)
        for outcome, delivery in zip(outcomes, deliveries, strict=True)
    )
    assert len(rows(connection, LEDGER)) == len({name.key for name, _ in batches})


def test_every_time_that_the_wire_accepts_survives_the_database(connection: psycopg.Connection) -> None:
    """Intake's clock may have said anything: no such line is refused only by PostgreSQL."""
    times = [
        "0001-01-01T00:00:00+14:00",
        "9999-12-31T23:59:59.999999999-14:59",
        "2026-01-20T23:59:59.9Z",
        "2024-02-29T00:00:00-00:00",
    ]
    jsonl = jsonl_of(replace(record(seq), captured_at=at) for seq, at in enumerate(times, start=1))

    assert counts(stored(connection, posted(name_of(jsonl, 1, 4), jsonl))) == [(4, 0, 0)]


def test_every_accepted_form_survives_the_database(connection: psycopg.Connection) -> None:
    """What reading accepts, PostgreSQL takes: tabs, backslashes, NUL escapes, emoji, 1 MiB."""
    payloads = [
        b'{\t"a" :\t1}',
        rb'{"a":"\\N \\. \" \u0000"}',
        '{"a":"Niño 🥥 \u2028"}'.encode(),
        b'{"a":"' + b"x" * (1024 * 1024 - 8) + b'"}',
        b'{"n":1E300,"m":-0.0,"l":12345678901234567890123}',
        rb'{"device_id":"\u0000","transaction_id":"\u0000"}',
    ]
    body = b"\r\n".join(payloads)
    delivery = read_object(f"{DAY}/{DEVICE}/a.jsonl", body, bucket="b", version="1")

    assert counts(stored(connection, delivery)) == [(len(payloads), 0, 0)]
    raw = rows(connection, "select payload from scout_bronze.transactions_raw order by line")
    assert [str(payload).encode() for (payload,) in raw] == payloads
