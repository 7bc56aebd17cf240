"""What every bucket promises, whatever holds it: one suite, run over each form."""

import inspect
import random
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from math import prod

import pytest
from bucket_forms import FORMS, Form
from structlog.testing import capture_logs

from server.bucket import Bucket, BucketRefused, InvalidKey, NoSuchObject, ObjectExists, ObjectTooLarge

KEY = "2026-01-20/pi-05/data.jsonl"
ROOM = 1 << 30
REFUSED_KEYS = {
    "empty": "",
    "absolute": "/etc/passwd",
    "parent": "2026-01-20/../../etc/passwd",
    "only a parent": "..",
    "here": "2026-01-20/./data.jsonl",
    "empty part": "2026-01-20//data.jsonl",
    "no file": "2026-01-20/pi-05/",
    "backslash": "2026-01-20\\data.jsonl",
    "NUL": "2026-01-20/data\0.jsonl",
    "percent": "2026-01-20/%2e%2e/data.jsonl",
    "newline": "2026-01-20/data\n.jsonl",
    "newline at the end": KEY + "\n",
    "non-ASCII": "2026-01-20/piñata.jsonl",
    "hash": "2026-01-20/#1.jsonl",
    "our own folder": "~incoming/data.jsonl",
    "a part too long": "2026-01-20/" + "x" * 256,
    "too long": "/".join(["x" * 200] * 6),
}
TAKEN_KEYS = [
    KEY,
    "a",
    "a b/c$d",
    "x" * 255,
    "2026-01-20/pi-05/10:30:00+08.jsonl",
    "...",
    "d/..b/c",
    "!.*'()&$@=;:+,?-",
]


def keys(form: Form, prefix: str = "") -> list[str]:
    """What a listing yields, in order."""
    return sorted(item.key for item in form.bucket.list(prefix))


def test_an_object_comes_back_byte_for_byte(form: Form) -> None:
    """Every key that the storage server allows works here too, and a listing says what a look at it says."""
    body = bytes(range(256))
    for key in TAKEN_KEYS:
        form.bucket.put_new(key, body)

    assert [form.bucket.get(key, ROOM) for key in TAKEN_KEYS] == [body] * len(TAKEN_KEYS)
    listed = {item.key: (item.version, item.bytes) for item in form.bucket.list("")}
    assert listed == {key: (form.bucket.version_of(key), 256) for key in TAKEN_KEYS}
    assert all(version for version, _ in listed.values())


@pytest.mark.parametrize("body", [b"", random.Random(5).randbytes(3_000_000)], ids=["empty", "3 MB"])
def test_an_object_of_any_size_comes_back(form: Form, body: bytes) -> None:
    """Empty ones and those of many packets."""
    form.bucket.put_new(KEY, body)

    assert form.bucket.get(KEY, len(body)) == body


def opened(bucket: Bucket, key: str) -> None:
    """Open an object and read none of it."""
    with bucket.open(key):
        pass


def test_an_object_is_read_in_small_pieces(form: Form) -> None:
    """However large it is, little of it is held at a time."""
    body = random.Random(6).randbytes(5_000_000)
    form.bucket.put_new(KEY, body)
    with form.bucket.open(KEY) as pieces:
        read = list(pieces)

    assert b"".join(read) == body
    assert max(map(len, read)) <= 256 * 1024


def test_a_reader_may_stop_anywhere(form: Form) -> None:
    """More often than there are connections, and the next one reads from the beginning."""
    form.bucket.put_new(KEY, random.Random(7).randbytes(3_000_000))
    for _ in range(50):
        with form.bucket.open(KEY) as pieces:
            next(pieces)

    with pytest.raises(KeyError, match="the reader's own"), form.bucket.open(KEY):
        raise KeyError("the reader's own")
    assert len(form.bucket.get(KEY, ROOM)) == 3_000_000


def test_a_hostile_key_is_refused_everywhere(form: Form) -> None:
    """Nothing is written, read or looked at under it."""
    for key in REFUSED_KEYS.values():
        with pytest.raises(InvalidKey):
            form.bucket.put_new(key, b"")
        with pytest.raises(InvalidKey):
            opened(form.bucket, key)
        with pytest.raises(InvalidKey):
            form.bucket.version_of(key)
    assert keys(form) == []


def test_an_object_is_written_once(form: Form) -> None:
    """A second writer is told, and the first one's bytes stay."""
    form.bucket.put_new(KEY, b"first")

    with pytest.raises(ObjectExists):
        form.bucket.put_new(KEY, b"second")
    assert form.bucket.get(KEY, ROOM) == b"first"


def test_of_many_writers_at_once_the_bytes_of_one_stay_whole(form: Form) -> None:
    """They are those of a writer who was told that it succeeded."""

    def put(number: int) -> bytes | None:
        body = b"%d" % number * 10_000
        try:
            form.bucket.put_new(KEY, body)
        except ObjectExists:
            return None
        return body

    with ThreadPoolExecutor(8) as threads:
        written = [body for body in threads.map(put, range(16)) if body]

    assert form.bucket.get(KEY, ROOM) in written
    assert keys(form) == [KEY]


def test_threads_share_a_bucket(form: Form) -> None:
    """Each gets its own object back."""

    def put_and_get(number: int) -> bytes:
        form.bucket.put_new(f"day/{number}", b"%d" % number)
        return form.bucket.get(f"day/{number}", ROOM)

    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(put_and_get, range(40))) == [b"%d" % number for number in range(40)]
    assert len(keys(form, "day/")) == 40


def test_no_more_is_read_than_is_allowed(form: Form) -> None:
    """An object that fits exactly is read; one byte more is too much, whatever a listing said."""
    form.bucket.put_new(KEY, b"12345")

    assert form.bucket.get(KEY, 5) == b"12345"
    with pytest.raises(ObjectTooLarge, match="larger than 4 bytes"):
        form.bucket.get(KEY, 4)


def test_what_is_not_there_is_said(form: Form) -> None:
    """A missing object has no version, can't be read, and a missing folder lists nothing."""
    assert form.bucket.version_of(KEY) is None
    assert keys(form, "2026-01-20/") == []
    with pytest.raises(NoSuchObject):
        opened(form.bucket, KEY)


def test_an_object_that_is_gone_is_not_there(form: Form) -> None:
    """And may be stored anew."""
    form.bucket.put_new(KEY, b"first")
    form.remove(KEY)

    assert form.bucket.version_of(KEY) is None
    assert keys(form) == []
    form.bucket.put_new(KEY, b"second")
    assert form.bucket.get(KEY, ROOM) == b"second"


def test_a_changed_object_has_another_version(form: Form) -> None:
    """Also when its size is the same; the listing says the same."""
    form.plant(KEY, b"first")
    before = form.bucket.version_of(KEY)
    form.plant(KEY, b"other")

    after = form.bucket.version_of(KEY)
    assert after not in (before, None)
    assert [item.version for item in form.bucket.list("")] == [after]


def test_a_listing_is_recursive_and_by_the_beginning_of_the_key(form: Form) -> None:
    """Upper and lower case differ, and a prefix may end within a name."""
    stored = ["b", "a/b", "a-b", "a/a/c", "a.b", "a/a-c", "A", "a_b", "axb"]
    for key in stored:
        form.bucket.put_new(key, b"")

    assert keys(form) == sorted(stored)
    assert keys(form, "a/") == ["a/a-c", "a/a/c", "a/b"]
    assert keys(form, "a/a") == ["a/a-c", "a/a/c"]
    assert keys(form, "a_") == ["a_b"]
    assert keys(form, "A") == ["A"]


def test_a_name_that_no_key_can_have_hides_no_other_object(form: Form) -> None:
    """It is passed over, in the folder of a day and in all of the bucket; how many there are is logged."""
    form.bucket.put_new("day/a", b"")
    form.bucket.put_new("day/z", b"")
    for name in form.odd_names:
        form.plant(name, b"odd")

    with capture_logs() as logs:
        assert keys(form) == ["day/a", "day/z"]
    assert {entry["event"] for entry in logs} == {"odd_names_skipped"}
    assert sum(entry["count"] for entry in logs) == len(form.odd_names) > 4
    with capture_logs():
        assert keys(form, "day/") == ["day/a", "day/z"]
        assert keys(form, "day/a") == ["day/a"]


def test_a_bucket_that_is_not_there_does_not_look_empty(form: Form) -> None:
    """A check passes while it is there and says what to do once it is not."""
    form.bucket.check()
    form.destroy()

    with pytest.raises(BucketRefused, match=r"there is no bucket|is not there"):
        form.bucket.check()


@pytest.mark.parametrize("name", FORMS)
def test_every_form_runs_every_case(request: pytest.FixtureRequest, name: str) -> None:
    """A form that is left out of a case has not passed it."""
    shared = {
        title: prod(len(mark.args[1]) for mark in getattr(case, "pytestmark", []))
        for title, case in inspect.getmembers(sys.modules[__name__], inspect.isfunction)
        if title.startswith("test_") and "form" in inspect.signature(case).parameters
    }
    here = [item for item in request.session.items if item.path == request.path and "form" in item.fixturenames]
    ran = Counter(item.originalname for item in here if item.callspec.params["form"] == name)

    assert ran == shared
    assert ran.total() >= 16
