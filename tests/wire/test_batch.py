"""Batch names, device ids and sealing days."""

from datetime import date, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wire.batch import UNDATED, BatchName, NotABatchName, content_hash, sealing_day
from wire.device import device_id_problem

KEY = "2026-11-22/pi-05/00000000000000aa-000000000001-000000002000-00000000000000bb.jsonl.gz"
HEX = st.from_regex("[0-9a-f]{16}", fullmatch=True)

device_ids = st.from_regex("[a-z0-9][a-z0-9-]{0,62}", fullmatch=True).filter(lambda name: not device_id_problem(name))
seqs = st.integers(1, 999_999_999_999)
names = st.builds(
    lambda day, device_id, epoch, run, hash_, resend: BatchName(
        day, device_id, epoch, min(run), max(run), hash_, resend
    ),
    st.dates(),
    device_ids,
    HEX,
    st.tuples(seqs, seqs),
    HEX,
    st.integers(0, 999_999),
)


@settings(deadline=None)
@given(names)
def test_a_key_reads_back_as_the_name_that_wrote_it(name: BatchName) -> None:
    """`parse` is the inverse of `key`."""
    assert BatchName.parse(name.key) == name


@settings(deadline=None, max_examples=500)
@given(names, st.data())
def test_parse_accepts_nothing_but_what_key_writes(name: BatchName, data: st.DataObject) -> None:
    """One name has one key."""
    key = name.key
    where = data.draw(st.integers(0, len(key)))
    mutated = key[:where] + data.draw(st.text(max_size=2)) + key[where + data.draw(st.integers(0, 2)) :]
    try:
        read = BatchName.parse(mutated)
    except NotABatchName:
        return
    assert read.key == mutated


@pytest.mark.parametrize(
    "key",
    [
        "",
        KEY + "\n",
        " " + KEY,
        "/" + KEY,
        "scout-ingest/" + KEY,
        KEY.upper(),
        KEY.replace("2026-11-22", "2026-02-30"),
        KEY.replace("2026-11-22", "0000-01-01"),
        KEY.replace("000000000001-", "000000000000-"),
        KEY.replace("000000000001-", "000000002001-"),
        KEY.replace("000000000001-", "00000000000\u0661-"),
        KEY.replace("000000000001-", "1-"),
        KEY.replace("pi-05", "Pi-05"),
        KEY.replace("pi-05", "-pi"),
        KEY.replace("pi-05", "p" * 64),
        KEY.replace("pi-05", "0192f0a0-0000-7000-8000-000000000001"),
        KEY.replace("pi-05", ".."),
        KEY.replace(".jsonl", "-r0.jsonl"),
        KEY.replace(".jsonl", "-r01.jsonl"),
        KEY.replace(".jsonl", "-r1000000.jsonl"),
        KEY.replace(".jsonl", "-r-1.jsonl"),
        KEY.removesuffix(".gz"),
        KEY.replace("00bb", "00b"),
    ],
)
def test_another_form_is_no_batch_name(key: str) -> None:
    """Neither paths around it, nor other digits, nor other padding."""
    assert BatchName.parse(KEY).key == KEY
    with pytest.raises(NotABatchName):
        BatchName.parse(key)


def test_a_copy_travels_under_its_own_name_and_counts_the_same_rows() -> None:
    """So it meets neither the first object's 409 nor its ledger row."""
    name = BatchName.parse(KEY)

    assert name.again(2).key == KEY.replace(".jsonl", "-r2.jsonl")
    assert BatchName.parse(name.again(2).key).rows == name.rows == 2000


@pytest.mark.parametrize("device_id", ["p", "0", "pi-05", "x" * 63, "a--b-"])
def test_a_device_may_be_called(device_id: str) -> None:
    """Small letters, digits and hyphens."""
    assert device_id_problem(device_id) is None


@pytest.mark.parametrize(
    "device_id",
    ["", "-p", "Pi", "pi_05", "pi.05", "x" * 64, "pi-05\n", "pì", "pi/05", "0192f0a000007000800000000000000a"],
)
def test_a_device_may_not_be_called(device_id: str) -> None:
    """Listings ignore case, and a UUID means something else to the storage server."""
    assert device_id_problem(device_id)


def test_a_clock_before_the_build_or_after_2099_gives_no_date() -> None:
    """A wrong date would hide a batch in a folder that nobody looks into."""
    built_on = date(2026, 11, 23)

    assert sealing_day(built_on, built_on) == built_on
    assert sealing_day(date(2099, 12, 31), built_on) == date(2099, 12, 31)
    assert sealing_day(built_on - timedelta(days=1), built_on) == UNDATED
    assert sealing_day(date(1970, 1, 1), built_on) == UNDATED
    assert sealing_day(date(2100, 1, 1), built_on) == UNDATED


def test_the_content_hash_is_plain_sha256() -> None:
    """Anybody can check an object against its name."""
    assert content_hash(b"") == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
