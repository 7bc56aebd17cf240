"""Rows that leave the landing table: never lost, never doubled, never counted wrong, whatever comes late or at once."""

import gzip
import json
import re
import threading
from collections.abc import Callable, Collection, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import psycopg
import pytest
from deliveries import DAY, DEVICE, EPOCH, batch, foreign, jsonl_of, name_of, posted, put_batch, record
from programs import scout_server
from psycopg_pool import ConnectionPool

from server import audit as custody
from server import importing, ledger, operator, quarantine, tokens
from server.bronze import Outcome, store
from server.buckets.folder import FolderBucket
from server.database import named_queries, transact
from server.etl import run_checks, run_etl
from server.loader import load
from server.prune import DAYS_SPARE, LoadersBusy, NotPrunable, due, prune
from server.reading import Delivery
from server.repair import RepairLimits, repair
from wire.batch import BatchName
from wire.record import to_line

DAYS = 30
OLD = "update scout_bronze.transactions_raw set ingested_at = ingested_at - interval '31 days'"
LINES = b'{"transaction_id":"f-1","peso_value":3}\n{"peso_value":4}\n'
KEY = f"{DAY}/{DEVICE}/data.jsonl"
LAYERS = (
    "select raw_id, epoch, seq, record_id, identity, payload from scout.bronze_edge_raw order by raw_id",
    "select raw_id, epoch, seq, record_id, identity, payload from scout.bronze_transactions_raw order by raw_id",
    "select * from scout.silver_edge_events order by raw_id",
    "select * from scout.silver_transactions order by transaction_key",
    "select * from scout.gold_daily_revenue order by business_day",
)
"""What analysts stand on: never changed by a prune or by what comes after it once more."""


@dataclass
class Office:
    """A server's database and bucket."""

    pool: ConnectionPool
    bucket: FolderBucket

    def rows(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        """Ask the database, or change it by hand."""
        with self.pool.connection() as connection:
            cursor = connection.execute(query.encode(), values or None)
            return cursor.fetchall() if cursor.description else []

    def store(self, *deliveries: Delivery) -> list[tuple[int, int]]:
        """Deliver by the endpoint; return what was new and known of each."""
        outcomes: list[Outcome] = transact(self.pool, lambda connection: store(connection, deliveries))
        return [(outcome.accepted, outcome.duplicates) for outcome in outcomes]

    def load(self) -> None:
        """Load what is in the bucket, and move what came."""
        load(self.pool, self.bucket, today=DAY)
        run_etl(self.pool)

    def prune(self, rows_max: int = 3) -> int:
        """Remove what is 30 days old."""
        with self.pool.connection() as connection:
            found = due(connection, DAYS)
        return prune(self.pool, found, rows_max=rows_max)

    def layers(self) -> list[list[tuple[Any, ...]]]:
        """What production, silver and gold hold."""
        return [self.rows(query) for query in LAYERS]

    def raw_seqs(self) -> list[int | None]:
        """What the landing table holds."""
        return [seq for (seq,) in self.rows("select seq from scout_bronze.transactions_raw order by seq")]

    def is_right(self) -> bool:
        """Whether nothing is missing, all sums meet and no check complains."""
        with self.pool.connection() as connection:
            problems = custody.audit(connection).problems()
        return (problems, [check for check in run_checks(self.pool) if check.contradictions]) == ([], [])


@pytest.fixture
def office(pool: ConnectionPool, bucket: FolderBucket) -> Office:
    """Two batches and others' lines, delivered by bucket and endpoint, moved, and 31 days old."""
    bucket.folder.mkdir(exist_ok=True)
    office = Office(pool, bucket)
    with pool.connection() as connection:
        tokens.add_device(connection, DEVICE)
    office.rows(
        "insert into scout_edge.heads (device_id, epoch, head, unsettled, first_heard_at, last_heard_at)"
        " values (%s, %s, 10, '{}', now(), now())",
        DEVICE,
        EPOCH,
    )
    put_batch(bucket, range(1, 6))
    bucket.put_new(KEY, LINES)
    office.load()
    office.store(posted(*batch(range(6, 11))))
    run_etl(pool)
    office.rows(OLD)
    return office


def test_what_is_old_enough_and_in_production_goes_and_nothing_else_changes(office: Office) -> None:
    """Counted before and after, by each count that an operator has."""
    office.store(posted(*batch(range(11, 14))))
    run_etl(office.pool)
    before, rows_loaded = office.layers(), status(office).rows_loaded
    assert (len(before[1]), rows_loaded) == (15, 15)

    with office.pool.connection() as connection:
        found = due(connection, DAYS)
    assert (found.rows, found.records, found.devices, found.unprocessed, found.lacking) == (12, 10, 1, 0, 0)
    assert office.raw_seqs() == [*range(1, 14), None, None]
    assert office.prune() == 12

    assert office.raw_seqs() == [11, 12, 13]
    assert office.layers() == before
    assert office.rows("select device_id, epoch, seqs::text from scout_bronze.retired") == [(DEVICE, EPOCH, "{[1,11)}")]
    assert office.rows("select count(*) from scout_bronze.retired_identities") == [(2,)]
    assert status(office).rows_loaded == rows_loaded
    assert office.is_right()
    assert office.prune() == 0
    with office.pool.connection() as connection:
        audited = custody.audit(connection)
    assert [(epoch.bronze, epoch.retired, epoch.missing) for epoch in audited.epochs] == [(0, 10, 0)]
    assert [(day.ledger, day.bronze, day.retired, day.accepted) for day in audited.sums] == [(15, 3, 12, 0)]


def status(office: Office) -> operator.DeviceStatus:
    """What `status` says of the device."""
    with office.pool.connection() as connection:
        (only,) = operator.ingestion_status(connection)
    return only


def put_once_more(office: Office) -> None:
    """The object lies in the bucket under another day, as a device of which the clock was set uploads it."""
    name, jsonl = batch(range(1, 6))
    office.bucket.put_new(name.key.replace(str(DAY), str(DAY.replace(day=19))), gzip.compress(jsonl))
    load(office.pool, office.bucket, today=DAY, sweep=True)


def put_copy(office: Office) -> None:
    """A copy that the server asked for."""
    name, jsonl = batch(range(1, 6))
    office.bucket.put_new(name.again(2).key, gzip.compress(jsonl))
    office.load()


def reload_all(office: Office) -> None:
    """An operator loads every object once more."""
    keys = [key for (key,) in office.rows("select key from scout_bronze.files where bucket <> 'endpoint'")]
    assert len(keys) == 2
    ledger.reload(office.pool, office.bucket, keys)


def replay(office: Office) -> None:
    """A line was refused that, mended, is a line which came long ago."""
    key = f"{DAY}/{DEVICE}/torn.jsonl"
    office.store(foreign(b'{"transaction_id":"f-1","peso_value":3\n', key=key))
    with office.pool.connection() as connection:
        (held,) = quarantine.list_held(connection, device_id=DEVICE, ended=False, limit=9)
    done = quarantine.replay(office.pool, held.quarantine_id, LINES.splitlines()[0])
    assert (done.accepted, done.duplicates) == (0, 1)


def bring_on_a_stick(office: Office) -> None:
    """What the agent exported comes late."""
    name, jsonl = batch(range(1, 6))
    file = office.bucket.folder.parent / "stick" / name.key
    file.parent.mkdir(parents=True)
    file.write_bytes(gzip.compress(jsonl))
    imported = importing.import_paths(office.pool, office.bucket, [file.parents[2]], dry_run=False)
    assert imported.problems == ()


LATE: dict[str, Callable[[Office], object]] = {
    "reloaded": reload_all,
    "the object under another day": put_once_more,
    "a copy that was asked for": put_copy,
    "posted as it was": lambda office: office.store(posted(*batch(range(6, 11)))),
    "the object's batch, posted": lambda office: office.store(posted(*batch(range(1, 6)))),
    "cut into other batches": lambda office: office.store(posted(*batch(range(1, 4))), posted(*batch(range(4, 9)))),
    "another file with the same line": lambda office: office.store(
        foreign(LINES.splitlines()[0] + b"\n", key=f"{DAY}/{DEVICE}/other.jsonl")
    ),
    "replayed": replay,
    "on a stick": bring_on_a_stick,
}


def test_a_late_copy_of_what_went_is_a_duplicate(office: Office) -> None:
    """By whichever way: bronze doesn't get it again, nothing beyond changes, and the counts stay true."""
    assert office.prune() == 12
    before, rows_loaded = office.layers(), status(office).rows_loaded

    for way, comes in LATE.items():
        comes(office)
        run_etl(office.pool)

        assert office.raw_seqs() == [], way
        assert office.rows("select count(*) from scout_bronze.loads") == [(0,)], way
        assert office.layers() == before, way
        assert status(office).rows_loaded == rows_loaded, way
        assert office.is_right(), way


def test_a_batch_that_comes_late_is_settled_all_the_same(office: Office) -> None:
    """Or its device would keep it, and send it, for ever."""
    office.prune()
    name, jsonl = batch(range(3, 9))
    assert office.store(posted(name, jsonl)) == [(0, 6)]

    assert office.rows("select scout_bronze.is_settled(%s, %s)", DEVICE, name.key) == [(True,)]


def fork_at(seqs: Collection[int], fork: int = 1) -> tuple[BatchName, bytes]:
    """A batch of other sales at these seqs, from a copied card."""
    jsonl = jsonl_of(record(seq, fork=fork) for seq in seqs)
    return name_of(jsonl, min(seqs), max(seqs)), jsonl


def forks(office: Office) -> set[tuple[int, str]]:
    """Those that are listed."""
    return set(office.rows("select seq, id::text from scout_bronze.forks"))


@pytest.mark.parametrize("is_pruned_first", [True, False])
def test_another_sale_at_a_retired_seq_is_a_fork_and_lands(office: Office, is_pruned_first: bool) -> None:
    """The same sales are there and the same forks are listed as when nothing had been pruned, also pruned in turn."""
    if is_pruned_first:
        office.prune()
    assert office.store(posted(*fork_at([4, 5])), posted(*fork_at([4, 5], fork=2))) == [(2, 0), (2, 0)]
    run_etl(office.pool)

    ids = {seq: sorted(record(seq, fork=fork).id for fork in range(3)) for seq in (4, 5)}
    expected = {(seq, later) for seq, (_, *rest) in ids.items() for later in rest}
    assert forks(office) == expected
    assert office.rows("select count(*) from scout.silver_transactions where seq in (4, 5)") == [(6,)]
    assert office.is_right()
    office.rows(OLD)
    office.prune()
    assert office.raw_seqs() == []
    assert office.store(posted(*batch(range(3, 6))), posted(*fork_at([4]))) == [(0, 3), (0, 1)]
    assert office.store(posted(*fork_at([5], fork=3))) == [(1, 0)]
    run_etl(office.pool)
    ids[5] = sorted([*ids[5], record(5, fork=3).id])
    assert forks(office) == {(seq, later) for seq, (_, *rest) in ids.items() for later in rest}
    assert office.is_right()


def test_a_fork_that_is_loaded_once_more_is_counted_by_its_own_rows(office: Office) -> None:
    """The ledger says of each file what it brought, whatever of its numbers was retired."""
    office.prune()
    name, jsonl = fork_at(range(1, 6))
    office.bucket.put_new(name.key, gzip.compress(jsonl))
    office.load()
    office.rows(OLD + " where seq <= 2")
    office.prune()
    assert office.raw_seqs() == [3, 4, 5]

    ledger.reload(office.pool, office.bucket, [name.key])

    counts = "select accepted, duplicates from scout_bronze.files where first_seq = 1"
    assert office.rows(counts) == [(5, 0), (5, 0)]
    assert office.is_right()


def test_a_line_that_was_replayed_is_counted_once_after_it_went(office: Office) -> None:
    """In quarantine's count, not in its file's."""
    good = to_line(record(11))
    jsonl = good.replace(b"150.50", b"NaN") + b"\n" + to_line(record(12)) + b"\n"
    name = name_of(jsonl, 11, 12)
    office.bucket.put_new(name.key, gzip.compress(jsonl))
    office.load()
    with office.pool.connection() as connection:
        (line,) = quarantine.list_held(connection, device_id=DEVICE, ended=False, limit=9)
    quarantine.replay(office.pool, line.quarantine_id, good)
    run_etl(office.pool)
    assert status(office).rows_loaded == 14
    office.rows(OLD + " where seq > 10")
    assert office.prune() == 14

    ledger.reload(office.pool, office.bucket, [name.key])

    assert office.rows("select accepted, duplicates, rejected from scout_bronze.files where first_seq = 11") == [
        (1, 0, 1)
    ]
    assert status(office).rows_loaded == 14
    assert office.is_right()


UNPROCESSED = {
    "waits": "insert into scout_bronze.loads (load_id, rows) overriding system value"
    " select min(load_id), 1 from scout_bronze.transactions_raw",
    "failed": "insert into scout_bronze.loads (load_id, rows, error, tried_at) overriding system value"
    " select min(load_id), 1, 'a step raised', now() from scout_bronze.transactions_raw",
}


@pytest.mark.parametrize("state", UNPROCESSED)
def test_nothing_goes_while_any_of_it_waits_for_the_etl(office: Office, state: str) -> None:
    """Also what the ETL tried and could not move. It says so, and what to do."""
    office.rows(UNPROCESSED[state])
    with pytest.raises(NotPrunable, match=r"wait for the ETL.*scout-server etl"):
        office.prune()
    assert len(office.raw_seqs()) == 12

    office.rows("update scout_bronze.loads set error = null")
    run_etl(office.pool)
    assert office.prune() == 12


def test_what_is_younger_may_wait_for_the_etl(office: Office) -> None:
    """It would not go anyway."""
    office.store(posted(*batch(range(11, 14))))

    assert office.prune() == 12
    assert office.raw_seqs() == [11, 12, 13]


def test_what_becomes_due_meanwhile_stays(office: Office) -> None:
    """Repair makes loads due again at any time: between the look and the removal, say."""
    with office.pool.connection() as connection:
        found = due(connection, DAYS)
    office.rows(UNPROCESSED["waits"])

    assert prune(office.pool, found) == 5
    run_etl(office.pool)
    assert office.is_right()
    assert office.prune() == 7


def test_what_production_lacks_stays_and_is_counted(office: Office) -> None:
    """Either of its tables: the landing row is the last one. Once repair has moved it again, it goes."""
    office.rows("delete from scout.bronze_edge_raw where seq = 2")
    office.rows("delete from scout.bronze_transactions_raw where seq = 7")
    with office.pool.connection() as connection:
        assert due(connection, DAYS).lacking == 2
    assert office.prune() == 10
    assert office.raw_seqs() == [2, 7]

    repair(office.pool, office.bucket, RepairLimits(check_s=0.0))
    run_etl(office.pool)

    assert office.prune() == 2
    assert office.is_right()


def test_too_few_days_are_refused(office: Office) -> None:
    """Fewer than devices keep what is settled, and a week: they may be asked for it again."""
    office.rows("update scout_edge.settings set keep_for_days = 24")
    with office.pool.connection() as connection:
        with pytest.raises(NotPrunable, match=f"{24 + DAYS_SPARE} are the least"):
            due(connection, DAYS)
        assert due(connection, 24 + DAYS_SPARE).rows == 12


def test_a_repair_asks_for_what_is_missing_and_never_for_what_was_retired(office: Office) -> None:
    """Of a batch of which rows went, the one that was deleted by hand comes back alone, as the row it was."""
    office.rows("update scout_bronze.transactions_raw set ingested_at = now() where seq = 4")
    before = office.layers()
    office.prune()
    assert office.raw_seqs() == [4]
    office.rows("delete from scout_bronze.transactions_raw")

    done = repair(office.pool, office.bucket, RepairLimits(check_s=0.0))
    assert (done.epochs, done.objects) == (1, 1)
    office.load()

    assert office.raw_seqs() == [4]
    assert office.layers() == before
    assert office.is_right()
    assert repair(office.pool, office.bucket, RepairLimits(check_s=0.0)).epochs == 0


def test_a_boot_that_is_measured_after_its_rows_went_corrects_their_times(office: Office) -> None:
    """Silver is typed from production: the landing table is not needed for it."""
    unsynced = record(11)
    jsonl = to_line(unsynced).replace(b'"synced"', b'"unsynced"') + b"\n"
    office.store(posted(name_of(jsonl, 11, 11), jsonl), posted(*batch([12])))
    run_etl(office.pool)
    office.rows(OLD + " where seq = 11")
    assert office.prune() == 13
    at = "select captured_at = '2026-01-20 08:00:01.011+00' from scout.silver_transactions where seq = 11"
    assert office.rows(at) == [(False,)]

    with office.pool.connection() as connection:
        connection.execute(
            "select scout_edge.note_boots(%s, jsonb_build_array(jsonb_build_object('boot', %s::text, 'zero_at',"
            " '2026-01-20T08:00:00.000Z', 'error_ms', 10)))",
            [DEVICE, unsynced.boot],
        )
    # Its load has no rows of its own: it holds no prune up, and none takes its rows away.
    office.rows(OLD + " where seq = 12")
    assert office.prune() == 1
    run_etl(office.pool)

    assert office.rows(at) == [(True,)]
    assert office.rows("select count(*) from scout_bronze.loads") == [(0,)]


def test_a_head_is_proven_by_what_was_retired(office: Office) -> None:
    """A device that is heard for the first time in months is believed as if its rows were there."""
    office.prune()
    office.rows("update scout_bronze.retired set seqs = '{[1,1500000]}'")
    office.rows("delete from scout_edge.heads")

    assert office.rows("select scout_edge.note_epoch(%s, %s, 1500002, '{}', null)", DEVICE, EPOCH) == [(True,)]


def everything(office: Office) -> dict[str, Any]:
    """Values of the statements that remove: of all old rows, with a second to wait for loaders."""
    rows = office.rows("select raw_id from scout_bronze.transactions_raw where seq <= 10 or seq is null")
    return {"ms": "1000", "raw_id": [raw_id for (raw_id,) in rows]}


STATEMENTS = ("wait_at_most", "keep_loaders_out", "remove", "the next batch")


@pytest.mark.parametrize("statement", range(4))
def test_a_run_cut_off_at_any_statement_leaves_each_row_there_or_retired(
    office: Office, postgres_url: str, statement: int
) -> None:
    """As when PostgreSQL is killed under it: another run goes on, and nothing is doubled or lost."""
    before = office.layers()

    def cut(_done: int, _of: int) -> None:
        raise psycopg.OperationalError("the server closed the connection")

    if statement == 3:
        with office.pool.connection() as connection:
            found = due(connection, DAYS)
        with pytest.raises(psycopg.OperationalError):
            prune(office.pool, found, rows_max=3, progress=cut)
    else:
        queries = named_queries("prune")
        with closing(psycopg.connect(office.pool.conninfo)) as connection:
            for name in STATEMENTS[: statement + 1]:
                connection.execute(queries[name], everything(office))
            with psycopg.connect(postgres_url, autocommit=True) as other:
                other.execute("select pg_terminate_backend(%s)", [connection.info.backend_pid])
            with pytest.raises(psycopg.errors.AdminShutdown):
                connection.commit()
    assert len(office.raw_seqs()) == (9 if statement == 3 else 12)
    assert office.is_right()

    office.prune()

    assert office.raw_seqs() == []
    assert office.layers() == before
    assert office.is_right()


@pytest.fixture
def removing(office: Office) -> Iterator[psycopg.Connection]:
    """A prune that has removed everything, and not committed yet."""
    with psycopg.connect(office.pool.conninfo) as connection:
        for name in STATEMENTS[:3]:
            connection.execute(named_queries("prune")[name], everything(office))
        yield connection


def wait_until_blocked(office: Office, count: int = 1) -> None:
    """Wait until so many sessions wait for the landing table."""
    waiting = "select count(*) from pg_locks where not granted and relation = 'scout_bronze.transactions_raw'::regclass"
    for _ in range(1000):
        if office.rows(waiting) == [(count,)]:
            return
        threading.Event().wait(0.01)
    raise AssertionError("nobody waits")


@pytest.fixture
def prepared(office: Office) -> Iterator[psycopg.Connection]:
    """A loader's connection on which the merge is prepared, with a plan of before."""
    with closing(psycopg.connect(office.pool.conninfo, autocommit=True, prepare_threshold=0)) as connection:
        connection.execute("set plan_cache_mode = force_generic_plan")
        for seq in (11, 12):
            with connection.transaction():
                store(connection, [posted(*batch([seq]))])
        merges = "select count(*) from pg_prepared_statements where statement like 'with retired as%'"
        assert connection.execute(merges).fetchall() == [(1,)]
        yield connection


def test_loaders_that_meet_a_row_while_it_goes_do_not_land_it_again(
    office: Office, prepared: psycopg.Connection, removing: psycopg.Connection
) -> None:
    """They wait for the end of that transaction, and see then what was retired; also where the merge was prepared."""
    landed: list[tuple[int, int]] = []

    def load_prepared() -> None:
        with prepared.transaction():
            (outcome,) = store(prepared, [posted(*batch(range(1, 8)))])
        landed.append((outcome.accepted, outcome.duplicates))

    late = [posted(*batch(range(3, 9))), foreign(LINES, key=KEY), posted(*fork_at([9]))]
    loaders = [threading.Thread(target=step) for step in (lambda: landed.extend(office.store(*late)), load_prepared)]
    for loader in loaders:
        loader.start()
    wait_until_blocked(office, 2)
    removing.commit()
    for loader in loaders:
        loader.join()
    run_etl(office.pool)

    assert sorted(landed) == [(0, 2), (0, 6), (0, 7), (1, 0)]
    assert office.raw_seqs() == [9, 11, 12]
    assert office.rows("select count(*), count(distinct record_id) from scout.bronze_edge_raw") == [(15, 13)]
    assert office.is_right()


def test_a_second_prune_takes_turns(office: Office, removing: psycopg.Connection) -> None:
    """It finds what is left."""
    with office.pool.connection() as connection:
        found = due(connection, DAYS)
    removed: list[int] = []
    second = threading.Thread(target=lambda: removed.append(prune(office.pool, found)))
    second.start()
    wait_until_blocked(office)
    removing.commit()
    second.join()

    assert removed == [0]
    assert office.is_right()


def test_loaders_that_let_nobody_in_are_an_error(office: Office) -> None:
    """Nothing was removed, and it says when to try again."""
    with psycopg.connect(office.pool.conninfo) as loader, office.pool.connection() as connection:
        found = due(connection, DAYS)
        loader.execute("lock table scout_bronze.transactions_raw in row exclusive mode")
        with pytest.raises(LoadersBusy, match="run it again"):
            prune(office.pool, found, tries_max=2, sleep=lambda _: None)
    assert len(office.raw_seqs()) == 12


def test_a_loader_in_the_middle_is_waited_for_and_others_go_first(office: Office) -> None:
    """A prune that finds no turn gives way, tries again, and says in the end that it could not."""
    waited: list[float] = []
    with psycopg.connect(office.pool.conninfo) as loader, office.pool.connection() as connection:
        found = due(connection, DAYS)
        loader.execute("lock table scout_bronze.transactions_raw in row exclusive mode")

        def others_go_first(wait_s: float) -> None:
            waited.append(wait_s)
            if len(waited) == 1:
                assert office.store(posted(*batch(range(11, 13)))) == [(2, 0)]
            else:
                loader.rollback()

        assert prune(office.pool, found, sleep=others_go_first) == 12
    assert len(waited) == 2


def test_prunes_loaders_and_the_etl_at_once_lose_and_double_nothing(office: Office) -> None:
    """Copies of what goes, new batches, two prunes and the ETL, all at the same time."""
    late = [posted(*batch(range(first, first + 3))) for first in range(1, 8)]
    new = [posted(*batch(range(first, first + 5))) for first in range(11, 61, 5)]
    work: list[Callable[[], object]] = [
        lambda: [office.store(delivery) for delivery in late],
        lambda: [office.store(delivery) for delivery in reversed(late)],
        lambda: [office.store(delivery) for delivery in new],
        lambda: [run_etl(office.pool) for _ in range(10)],
        lambda: prune_at_once(office),
        lambda: prune_at_once(office),
    ]
    failed: list[BaseException] = []

    def run(step: Callable[[], object]) -> None:
        try:
            step()
        except BaseException as error:  # noqa: BLE001  # of a thread: told below
            failed.append(error)

    threads = [threading.Thread(target=run, args=(step,)) for step in work]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    run_etl(office.pool)
    office.rows("update scout_edge.heads set head = 60")

    assert failed == []
    assert office.raw_seqs() == list(range(11, 61))
    assert office.rows("select count(*), count(distinct seq) from scout.bronze_transactions_raw") == [(62, 60)]
    assert office.is_right()


def prune_at_once(office: Office) -> None:
    """Remove what is old, a row a transaction, whatever others do."""
    with office.pool.connection() as connection:
        found = due(connection, DAYS)
    prune(office.pool, found, rows_max=1, sleep=lambda _: None)


def test_the_command_counts_asks_and_removes(office: Office) -> None:
    """In words and as JSON; a dry run and an answer of no change nothing, a refusal says why."""
    command = ("prune", "--database-url", office.pool.conninfo, "--raw-days")
    few = scout_server(*command, "3", "--yes")
    dry = scout_server(*command, "30", "--dry-run")
    counted = json.loads(scout_server(*command, "30", "--dry-run", "--json").stdout)
    asked = scout_server(*command, "30")
    assert len(office.raw_seqs()) == 12
    done = json.loads(scout_server(*command, "30", "--yes", "--json").stdout)
    again = scout_server(*command, "30")

    assert few.returncode == 1
    assert "15 are the least" in few.stderr
    assert dry.stdout.startswith("12 rows of 1 devices, received ")
    assert dry.stdout.endswith(", would be removed\n")
    assert (counted["rows"], counted["removed"], counted["dry_run"]) == (12, 0, True)
    assert asked.returncode == 1
    assert "will be removed" in asked.stderr
    assert (done["rows"], done["removed"], done["dry_run"]) == (12, 12, False)
    assert (again.returncode, again.stdout) == (0, "0 rows removed\n")
    assert office.raw_seqs() == []


def test_looking_for_what_was_retired_costs_as_the_new_rows_do(office: Office) -> None:
    """Not as what is retired: each line is looked up in an index, whatever the planner thinks of the tables."""
    office.rows(
        "insert into scout.bronze_transactions_raw (device_id, epoch, seq, record_id, raw_id, source_id)"
        " select 'pi-9', 'e' || n / 100, n % 100, gen_random_uuid(), -n, 'pi-9' from generate_series(1, 20000) n"
    )
    office.rows(
        "insert into scout_bronze.retired select 'pi-9', 'e' || n, '{[0,100)}' from generate_series(0, 20000) n;"
        "insert into scout_bronze.retired_identities select 'pi-9', sha256(n::text::bytea)"
        " from generate_series(1, 20000) n;"
        "analyze"
    )
    with office.pool.connection() as connection, connection.transaction():
        connection.execute(named_queries("bronze")["prepare"], prepare=False)
        connection.execute(
            "insert into pg_temp.staged (file_id, device_id, epoch, seq, id, payload, object_key, line)"
            " select 1, 'pi-9', 'e' || n / 100, n % 100, gen_random_uuid(), '{}', 'k', 1"
            " from generate_series(1, 5000) n"
        )
        connection.execute("analyze pg_temp.staged")
        plan = connection.execute("explain (costs off) " + named_queries("bronze")["merge"], {"load_id": 1}).fetchall()
    text = "\n".join(line for (line,) in plan)

    assert re.search("Index (Only )?Scan using bronze_transactions_raw_record", text)
    assert re.findall(r"Seq Scan on (\w+)", text) == ["staged"] * 4
