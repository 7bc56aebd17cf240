"""What was just stored is loaded by its name; listing takes a bounded share of the time, and loses nothing."""

from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg_pool import ConnectionPool

from server.bucket import BucketUnavailable, ObjectInfo
from server.buckets.folder import FolderBucket
from server.config import now
from server.loading import LISTING_PAUSE_S_MAX, NAMES_MAX, SWEEP_INTERVAL_S, Loading


class Watched(FolderBucket):
    """A bucket that notes what is listed, that takes its time for it, and that can be away."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.at_s = 1000.0
        self.listing_s = 0.0
        self.is_away = False
        self.listed: list[str] = []

    def check(self) -> None:
        """Be there, or not."""
        if self.is_away:
            raise BucketUnavailable("away")
        super().check()

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """List as ever, and let time pass."""
        self.listed.append(prefix)
        self.at_s += self.listing_s
        return super().list(prefix)

    def now_s(self) -> float:
        """The time by which the loader goes."""
        return self.at_s


@pytest.fixture
def watched(bucket: FolderBucket) -> Watched:
    """Open an empty bucket."""
    bucket.folder.mkdir(exist_ok=True)
    return Watched(bucket.folder)


@pytest.fixture
def loading(pool: ConnectionPool, watched: Watched) -> Loading:
    """Make a loader that has swept the empty bucket, and has paused after it."""
    made = Loading(pool, watched, lambda: None, watched.now_s)
    watched.listing_s = 60.0
    made.step()
    assert watched.listed == [""]
    watched.listed.clear()
    return made


def put(watched: Watched, number: int, device: str = "pi-1") -> str:
    """Store an object of one sale in today's folder."""
    key = f"{now().date()}/{device}/{number}.jsonl"
    watched.put_new(key, b'{"n":%d}' % number)
    return key


def in_bronze(connection: psycopg.Connection) -> int:
    """Count the sales."""
    (count,) = connection.execute("select count(*) from scout_bronze.transactions_raw").fetchone() or (0,)
    return int(count)


def test_what_was_just_stored_is_loaded_without_a_listing(
    loading: Loading, watched: Watched, connection: psycopg.Connection
) -> None:
    """However many objects lie beside it."""
    put(watched, 1)
    loading.note_stored(put(watched, 2))

    assert loading.step().loaded == 1
    assert in_bronze(connection) == 1
    assert watched.listed == []


def test_what_nobody_told_of_is_found_after_a_pause(loading: Loading, watched: Watched) -> None:
    """By a listing of two days, a minute later at most however long listing takes; then it pauses again."""
    put(watched, 1)
    watched.at_s += LISTING_PAUSE_S_MAX
    assert loading.step().loaded == 1
    assert len(watched.listed) == 2

    put(watched, 2)
    assert loading.step().loaded == 0
    watched.at_s += LISTING_PAUSE_S_MAX
    assert loading.step().loaded == 1


def test_where_listing_is_quick_every_step_lists(loading: Loading, watched: Watched) -> None:
    """As in a bucket with little in it."""
    watched.at_s += LISTING_PAUSE_S_MAX
    watched.listing_s = 0.0
    loading.step()

    for number in range(3):
        put(watched, number)
        watched.at_s += 1.0
        assert loading.step().loaded == 1


def test_a_name_that_a_failed_step_forgot_is_found_by_the_next(loading: Loading, watched: Watched) -> None:
    """It lists at once."""
    loading.note_stored(put(watched, 1))
    watched.is_away = True
    with pytest.raises(BucketUnavailable):
        loading.step()

    watched.is_away = False
    assert loading.step().loaded == 1
    assert watched.listed


def test_names_are_bounded_and_those_too_many_are_found_by_a_listing(loading: Loading, watched: Watched) -> None:
    """The newest are kept."""
    first = put(watched, 1)
    loading.note_stored(first)
    last = put(watched, 2)
    for _ in range(NAMES_MAX):
        loading.note_stored(last)

    assert loading.step().loaded == 1
    watched.at_s += LISTING_PAUSE_S_MAX
    assert loading.step().loaded == 1


def test_the_whole_bucket_is_swept_once_a_day(loading: Loading, watched: Watched) -> None:
    """An object in an old day's folder is found then."""
    watched.put_new("2020-01-01/pi-1/old.jsonl", b'{"n":1}')
    watched.at_s += LISTING_PAUSE_S_MAX
    assert loading.step().loaded == 0

    watched.at_s += SWEEP_INTERVAL_S
    assert loading.step().loaded == 1
