"""A stick's manifest: what is written is read back, and nothing that leads elsewhere is."""

from dataclasses import replace
from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wire.batch import BatchName, content_hash
from wire.manifest import ManifestEntry, NotAManifestLine, checksums_of, from_line, to_line

SHA256 = content_hash(b'{"seq":1}\n')
NAME = BatchName(date(2026, 11, 25), "pi-05", "0123456789abcdef", 1, 30, SHA256[:16])
ENTRY = ManifestEntry.of(NAME, SHA256, 1234, "0" * 64)


@given(resend=st.integers(0, 999_999), first=st.integers(1, 10**6), rows=st.integers(1, 10**6), size=st.integers(0))
def test_an_entry_is_read_as_it_was_written(resend: int, first: int, rows: int, size: int) -> None:
    """Also of a copy that the server asked for."""
    name = replace(NAME, resend=resend, first_seq=first, last_seq=first + rows - 1)
    entry = ManifestEntry.of(name, SHA256, size, "f" * 64)

    assert from_line(to_line(entry)) == entry
    assert (entry.key, entry.rows, entry.device) == (name.key, rows, "pi-05")


def test_unknown_fields_are_ignored() -> None:
    """A newer agent may write more."""
    assert from_line(to_line(ENTRY).replace(b"{", b'{"of_tomorrow":[1],', 1)) == ENTRY


@pytest.mark.parametrize(
    ("written", "instead"),
    [
        (b"2026-11-25/pi-05/", b"../../pi-05/"),
        (b"2026-11-25/pi-05/", b"/etc/pi-05/"),
        (b"2026-11-25/pi-05/", b"2026-11-25/PI-05/"),
        (b'"device":"pi-05"', b'"device":"pi-06"'),
        (b'"rows":30', b'"rows":31'),
        (b'"rows":30', b'"rows":"30"'),
        (b'"first_seq":1', b'"first_seq":2'),
        (b'"sha256":"' + SHA256.encode(), b'"sha256":"' + b"0" * 64),
        (b'"sha256":"' + SHA256.encode(), b'"sha256":"' + SHA256.encode() + b"0"),
        (b"0" * 64, b"0" * 63 + b"\n"),
        (b"{", b"["),
        (b'"epoch"', b'"epocha"'),
    ],
)
def test_a_line_that_contradicts_itself_or_names_no_batch_is_refused(written: bytes, instead: bytes) -> None:
    """Its key would be joined to a folder's path."""
    line = to_line(ENTRY)
    assert line.count(written) == 1
    with pytest.raises(NotAManifestLine):
        from_line(line.replace(written, instead))


@given(st.binary())
def test_rubbish_is_refused(line: bytes) -> None:
    """Whatever a damaged stick gives back."""
    with pytest.raises(NotAManifestLine):
        from_line(line)


def test_checksums_are_written_as_sha256sum_reads_them() -> None:
    """Two blanks between, one line a file."""
    assert checksums_of([("a/b", "0" * 64), ("c", "1" * 64)]) == b"%s  a/b\n%s  c\n" % (b"0" * 64, b"1" * 64)
