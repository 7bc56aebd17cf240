"""Group commit: shared transactions, and nobody harmed by a neighbour."""

import threading

import pytest
from endpoints import DEADLINE_S
from psycopg_pool import ConnectionPool

from server.bronze import Outcome
from server.committer import Committer, Overloaded, Stopping
from server.config import Limits
from server.reading import Delivery, read_foreign


def delivery(text: bytes, device_id: str = "pi-05") -> Delivery:
    """What a device posted."""
    return read_foreign(text, lines_only=True, bucket="endpoint", key=f"post/{text!r}", version="", device_id=device_id)


def poisoned(text: bytes) -> Delivery:
    """What the database refuses, though every line was valid: a NUL byte can't stand in a text column."""
    good = delivery(text)
    return Delivery(good.bucket, "post/\0", "", good.device_id, None, good.sha256, good.bytes, good.lines, good.refused)


def rows(pool: ConnectionPool) -> list[str]:
    """The payloads in bronze, in their order."""
    with pool.connection() as connection:
        found = connection.execute("select payload from scout_bronze.transactions_raw order by raw_id").fetchall()
    return [row[0] for row in found]


def test_what_waited_is_stored_in_one_transaction(pool: ConnectionPool):
    """What waited is stored in one transaction."""
    commits: list[int] = []
    committer = Committer(pool, Limits(), lambda: commits.append(1))
    waiting = [committer.submit(delivery(b'{"a":%d}' % number)) for number in range(20)]

    with committer:
        outcomes = [future.result(DEADLINE_S) for future in waiting]

    assert outcomes == [Outcome(1, 0, ())] * 20
    assert len(commits) == 1
    assert len(rows(pool)) == 20


def test_a_group_has_a_bound_of_rows(pool: ConnectionPool):
    """A group has a bound of rows."""
    commits: list[int] = []
    committer = Committer(pool, Limits(rows_per_commit_max=5), lambda: commits.append(1))
    waiting = [committer.submit(delivery(b'{"a":%d}\n{"b":%d}' % (number, number))) for number in range(6)]

    with committer:
        outcomes = [future.result(DEADLINE_S) for future in waiting]

    assert outcomes == [Outcome(2, 0, ())] * 6
    assert len(commits) == 3


def test_a_poisoned_delivery_fails_alone(pool: ConnectionPool):
    """A poisoned delivery fails alone."""
    committer = Committer(pool, Limits(), lambda: None)
    before, bad, after = (
        committer.submit(given) for given in (delivery(b'{"a":1}'), poisoned(b'{"a":2}'), delivery(b'{"a":3}'))
    )

    with committer:
        assert before.result(DEADLINE_S) == after.result(DEADLINE_S) == Outcome(1, 0, ())
        assert bad.exception(DEADLINE_S) is not None
    assert rows(pool) == ['{"a":1}', '{"a":3}']


def test_a_full_queue_refuses_at_once(pool: ConnectionPool):
    """A full queue refuses at once."""
    committer = Committer(pool, Limits(posts_waiting_max=2), lambda: None)
    waiting = [committer.submit(delivery(b'{"a":%d}' % number)) for number in range(2)]

    with pytest.raises(Overloaded):
        committer.submit(delivery(b'{"a":3}'))
    with committer:
        assert [future.result(DEADLINE_S) for future in waiting] == [Outcome(1, 0, ())] * 2


def test_what_waits_is_bounded_in_bytes_and_a_larger_one_may_wait_alone(pool: ConnectionPool):
    """What waits is bounded in bytes, and a larger one may wait alone: it could never be taken otherwise."""
    committer = Committer(pool, Limits(waiting_bytes_max=10), lambda: None)
    waiting = [committer.submit(delivery(b'{"a":"longer than ten bytes"}'))]

    with pytest.raises(Overloaded):
        committer.submit(delivery(b'{"a":2}'))
    with committer:
        waiting[0].result(DEADLINE_S)
        waiting.append(committer.submit(delivery(b'{"a":3}')))
        assert [future.result(DEADLINE_S) for future in waiting] == [Outcome(1, 0, ())] * 2


def test_closing_stores_what_waits_and_refuses_what_comes(pool: ConnectionPool):
    """Closing stores what waits and refuses what comes."""
    committer = Committer(pool, Limits(), lambda: None)
    waiting = [committer.submit(delivery(b'{"a":%d}' % number)) for number in range(3)]
    with committer:
        pass

    assert [future.result(0) for future in waiting] == [Outcome(1, 0, ())] * 3
    with pytest.raises(Stopping):
        committer.submit(delivery(b'{"a":4}'))


def test_an_outcome_is_told_only_after_the_commit(pool: ConnectionPool):
    """The second delivery of a key waits for the first one's transaction, which another session holds open."""
    given = delivery(b'{"a":1}')
    with Committer(pool, Limits(), lambda: None) as committer, pool.connection() as connection:
        with connection.transaction():
            connection.execute("lock table scout_bronze.files in access exclusive mode")
            future = committer.submit(given)
            told = threading.Event()
            future.add_done_callback(lambda _: told.set())
            assert not told.wait(0.3)
        assert future.result(DEADLINE_S) == Outcome(1, 0, ())
    assert rows(pool) == ['{"a":1}']
