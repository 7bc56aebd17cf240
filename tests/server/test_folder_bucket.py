"""What only the bucket in a folder promises: durable, decided between writers, and closed to links."""

import os
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs
from test_bucket import KEY, REFUSED_KEYS, ROOM

from server.bucket import PIECE_BYTES, BucketFault, InvalidKey, NoSuchObject, ObjectExists, check_key
from server.buckets.folder import FolderBucket


@pytest.mark.parametrize("key", REFUSED_KEYS.values(), ids=REFUSED_KEYS)
def test_a_hostile_key_is_refused_everywhere(bucket: FolderBucket, key: str) -> None:
    """Nothing is written, read or looked at outside the bucket."""
    parent = bucket.folder.parent
    before = sorted(parent.rglob("*"))

    with pytest.raises(InvalidKey):
        bucket.put_new(key, b"")
    with pytest.raises(InvalidKey):
        bucket.get(key, ROOM)
    with pytest.raises(InvalidKey):
        bucket.version_of(key)
    assert sorted(parent.rglob("*")) == before


def test_an_object_that_becomes_shorter_while_it_is_read_is_a_fault(bucket: FolderBucket) -> None:
    """Somebody writes at its place: what was read never looks whole."""
    bucket.put_new(KEY, bytes(3 * PIECE_BYTES))
    with bucket.open(KEY) as pieces:
        assert len(next(pieces)) == PIECE_BYTES
        os.truncate(bucket.folder / KEY, PIECE_BYTES)
        with pytest.raises(BucketFault, match="became shorter"):
            list(pieces)


@given(st.text(max_size=30) | st.lists(st.sampled_from(["..", ".", "", "a", "~incoming", "a.b"])).map("/".join))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_key_leads_out_of_the_bucket(bucket: FolderBucket, key: str) -> None:
    """A key that is not refused names a path below the folder."""
    try:
        check_key(key)
    except InvalidKey:
        return
    path = (bucket.folder / key).resolve()
    assert path != bucket.folder
    assert path.is_relative_to(bucket.folder)


def test_of_many_writers_at_once_one_succeeds(bucket: FolderBucket) -> None:
    """The bytes stored are those of the writer who was told so."""

    def put(number: int) -> bytes | None:
        body = b"%d" % number * 10_000
        try:
            bucket.put_new(KEY, body)
        except ObjectExists:
            return None
        return body

    with ThreadPoolExecutor(8) as threads:
        written = [body for body in threads.map(put, range(16)) if body]

    assert [bucket.get(KEY, ROOM)] == written
    assert [item.key for item in bucket.list("")] == [KEY]
    assert list((bucket.folder / "~incoming").iterdir()) == []


def test_an_object_and_a_folder_of_one_name_are_refused(bucket: FolderBucket) -> None:
    """It must not look as if the object were there already."""
    bucket.put_new("a/b", b"")

    with pytest.raises(InvalidKey, match="below this key"):
        bucket.put_new("a", b"")
    with pytest.raises(InvalidKey, match="needs a folder"):
        bucket.put_new("a/b/c", b"")
    assert bucket.version_of("a") is None
    assert bucket.version_of("a/b/c") is None


def test_a_changed_object_has_another_version(bucket: FolderBucket) -> None:
    """Also when its size and time are the same."""
    bucket.put_new(KEY, b"first")
    before, path = bucket.version_of(KEY), bucket.folder / KEY
    status = path.stat()
    path.rename(path.with_name("aside"))
    path.write_bytes(b"other")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))

    assert before != bucket.version_of(KEY)


def test_a_listing_is_recursive_and_in_byte_order(bucket: FolderBucket) -> None:
    """Folders don't disturb the order of the keys."""
    keys = ["b", "a/b", "a-b", "a/a/c", "a.b", "a/a-c", "A"]
    for key in keys:
        bucket.put_new(key, b"")

    assert [item.key for item in bucket.list("")] == sorted(keys)
    assert [item.key for item in bucket.list("a/")] == ["a/a-c", "a/a/c", "a/b"]
    assert [item.key for item in bucket.list("a/a")] == ["a/a-c", "a/a/c"]


def test_a_listing_goes_on_past_odd_names(bucket: FolderBucket) -> None:
    """Names that no key can have, links and pipes are skipped, and how many is logged."""
    bucket.put_new("day/a", b"")
    bucket.put_new("day/z", b"")
    folder = bucket.folder / "day"
    (folder / "line\nbreak").write_bytes(b"")
    Path(os.fsdecode(os.fsencode(folder) + b"/\xff")).write_bytes(b"")
    (folder / "%2e").mkdir()
    (folder / "link").symlink_to("/etc")
    (folder / "passwords").symlink_to("/etc/passwd")
    os.mkfifo(folder / "pipe")

    with capture_logs() as logs:
        assert [item.key for item in bucket.list("day/")] == ["day/a", "day/z"]
    assert [(entry["event"], entry["count"]) for entry in logs] == [("odd_names_skipped", 6)]


@pytest.fixture
def outside(tmp_path: Path) -> Iterator[Path]:
    """Make a folder beside the bucket, with a file in it."""
    folder = tmp_path / "outside"
    folder.mkdir()
    (folder / "secret").write_bytes(b"secret")
    yield folder
    assert [path.name for path in folder.iterdir()] == ["secret"]
    shutil.rmtree(folder)


def test_no_link_leads_out_of_the_bucket(bucket: FolderBucket, outside: Path) -> None:
    """A link inside the folder is neither read, listed nor written through."""
    (bucket.folder / "way").symlink_to(outside)
    (bucket.folder / "file").symlink_to(outside / "secret")

    for key in ("way/secret", "file"):
        assert bucket.version_of(key) is None
        with pytest.raises(NoSuchObject):
            bucket.get(key, ROOM)
    with pytest.raises(InvalidKey, match="a link"):
        bucket.put_new("way/new", b"")
    assert list(bucket.list("way/")) == []


def test_what_is_being_written_is_not_listed(bucket: FolderBucket) -> None:
    """What a crash left half written is never mistaken for an object."""
    bucket.put_new(KEY, b"")
    (bucket.folder / "~incoming" / "half").write_bytes(b"half")

    with capture_logs() as logs:
        assert [item.key for item in bucket.list("")] == [KEY]
    assert logs == []
