"""Reading SQLite's pages without SQLite: all of a sound file, and no trouble with a damaged one."""

import random
import shutil
import sqlite3
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.pages import Pages, Row

VALUES = st.one_of(
    st.none(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=30),
    st.binary(max_size=30),
    st.integers(0, 20_000).map(lambda size: b"x" * size),  # some of them on pages of their own
)
ROWS = st.dictionaries(st.integers(-(2**63), 2**63 - 1), st.tuples(VALUES, VALUES), max_size=40)


def written(folder: Path, rows: dict[int, tuple[object, object]], page_bytes: int, in_wal: int) -> Path:
    """Make a database of which the last `in_wal` rows are in the WAL only; return a copy as a cut leaves it."""
    file = folder / "live.db"
    connection = sqlite3.connect(file, isolation_level=None)
    connection.execute(f"pragma page_size = {page_bytes}")
    connection.execute("pragma auto_vacuum = incremental")
    connection.execute("pragma journal_mode = wal")
    connection.execute("create table things (number integer primary key, a, b)")
    items = list(rows.items())
    for index, (number, (a, b)) in enumerate(items):
        if index == len(items) - in_wal:
            connection.execute("pragma wal_checkpoint(truncate)")
        connection.execute("insert into things values (?, ?, ?)", (number, a, b))
    for name in ("live.db", "live.db-wal"):
        shutil.copy(folder / name, folder / name.replace("live", "copy"))
    connection.close()
    return folder / "copy.db"


def found(file: Path) -> list[Row]:
    """Every row in a file."""
    with Pages(file, file.with_name(file.name + "-wal")) as pages:
        return [row for number in range(1, pages.count + 1) for row in pages.rows(number)]


def as_stored(value: object) -> object:
    """Text as bytes; SQLite keeps whole floats as integers in files."""
    if isinstance(value, str):
        return value.encode()
    return value


@settings(max_examples=30, deadline=None)
@given(rows=ROWS, page_bytes=st.sampled_from([512, 1024, 4096, 65536]), in_wal=st.integers(0, 40))
def test_of_a_sound_file_every_row_is_found_once(
    rows: dict[int, tuple[object, object]], page_bytes: int, in_wal: int
) -> None:
    """Whatever its size, in the file or still in the WAL."""
    with tempfile.TemporaryDirectory() as folder:
        seen = found(written(Path(folder), rows, page_bytes, in_wal))
    things = {row.rowid: row.values for row in seen if len(row.values) == 3}

    assert len(seen) == len(rows) + 1  # and the schema's own row
    assert things == {number: (None, as_stored(a), as_stored(b)) for number, (a, b) in rows.items()}


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32), parts=st.integers(1, 8))
def test_nothing_in_a_damaged_file_raises(seed: int, parts: int) -> None:
    """Rubbish anywhere, cut anywhere: what makes no sense is left out."""
    rng = random.Random(seed)
    rows = {number: (b"x" * rng.randrange(9000), f"row {number}") for number in range(60)}
    with tempfile.TemporaryDirectory() as folder:
        file = written(Path(folder), dict(rows), 1024, 20)
        for _ in range(parts):
            harm(file if rng.random() < 0.7 else file.with_name("copy.db-wal"), rng)
        for row in found(file):
            assert isinstance(row.rowid, int)


def harm(file: Path, rng: random.Random) -> None:
    """Flip, zero, overwrite or cut somewhere."""
    content = bytearray(file.read_bytes())
    start = rng.randrange(max(1, len(content)))
    end = min(len(content), start + rng.choice([1, 16, 600, 5000]))
    kind = rng.choice(["flip", "zero", "rubbish", "cut"])
    if kind == "cut":
        content = content[:start]
    elif content:
        content[start:end] = {
            "flip": bytes(byte ^ (1 << rng.randrange(8)) for byte in content[start:end]),
            "zero": bytes(end - start),
            "rubbish": rng.randbytes(end - start),
        }[kind]
    file.write_bytes(content)


def test_what_was_not_committed_is_not_found(tmp_path: Path) -> None:
    """Frames of a transaction that was given up lie in the WAL like any other."""
    file = tmp_path / "live.db"
    connection = sqlite3.connect(file, isolation_level=None)
    connection.execute("pragma journal_mode = wal")
    connection.execute("pragma cache_size = 5")  # so that they are written before the commit
    connection.execute("create table things (number integer primary key, a)")
    connection.execute("insert into things values (1, 'committed')")
    connection.execute("begin")
    connection.executemany("insert into things values (?, ?)", [(number, b"x" * 3000) for number in range(2, 100)])
    for name in ("live.db", "live.db-wal"):
        shutil.copy(tmp_path / name, tmp_path / name.replace("live", "copy"))
    connection.close()

    assert (tmp_path / "copy.db-wal").stat().st_size > 50 * 4096
    assert [row.rowid for row in found(tmp_path / "copy.db") if len(row.values) == 2] == [1]


@pytest.mark.parametrize("missing", ["copy.db", "copy.db-wal"])
def test_one_of_the_two_files_may_be_missing(tmp_path: Path, missing: str) -> None:
    """What is in the other one is found."""
    rows: dict[int, tuple[object, object]] = dict.fromkeys(range(40), (b"x" * 500, None))
    file = written(tmp_path, rows, 1024, 20)
    (tmp_path / missing).unlink()
    numbers = {row.rowid for row in found(file) if len(row.values) == 3}

    assert 15 <= len(numbers) < 40
