"""A damaged SQLite file, read page by page and without its trees.

May be relied on
- Nothing is written. Nothing that a file may hold raises; what makes no sense is left out.
- Of a sound file, every row of every table that has rowids is found once, as SQLite would read it: with the WAL up
  to its last whole commit, and nothing after that.
- Of a damaged one, rows are what the bytes say. Whoever takes one needs a proof of its own, such as a checksum.
  Rows that were deleted may turn up again.

The format: https://www.sqlite.org/fileformat2.html, sections 1.6 (leaf pages), 2.1 (rows) and 4 (WAL).
"""

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Self

ROW_BYTES_MAX = 8 * 1024 * 1024
PAGE_BYTES_USUAL = 4096

_TABLE_LEAF = 0x0D
_INDEX_LEAF = 0x0A
_INDEX_INNER = 0x02
_FILE_HEADER_BYTES = 100
_WAL_HEADER = struct.Struct(">8I")
_FRAME_HEADER = struct.Struct(">6I")
_WAL_MAGIC = 0x377F0682  # its last bit: whether the checksums take the words in big-endian order
_INTEGER_BYTES = {1: 1, 2: 2, 3: 3, 4: 4, 5: 6, 6: 8}

Value = int | float | bytes | None


class _Nonsense(Exception):
    """These bytes are no row."""


@dataclass(frozen=True, slots=True)
class Row:
    """A row as stored: text and blobs as bytes; the column that is the rowid's alias reads None."""

    rowid: int
    values: tuple[Value, ...]


class Pages:
    """A database file and its WAL; either may be missing."""

    def __init__(self, file: Path, wal: Path) -> None:
        self._file = _open(file)
        self._wal = _open(wal)
        self._page_bytes = self._page_size()
        self._in_wal = dict(self._committed())
        size = os.fstat(self._file).st_size if self._file is not None else 0
        self.count = max([-(-size // self._page_bytes), *self._in_wal])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for descriptor in (self._file, self._wal):
            if descriptor is not None:
                os.close(descriptor)

    def rows(self, number: int) -> Iterator[Row]:
        """The rows of a page, counted from 1, if it is the leaf of a table."""
        for page, place in self._cells(number, _TABLE_LEAF):
            try:
                yield self._row(page, place)
            except _Nonsense:
                continue

    def entries(self, number: int) -> Iterator[tuple[Value, ...]]:
        """The rows of a page, if it is of a table without rowids, or of an index; long ones are left out.

        Such a tree holds rows in its inner pages too, each behind the four bytes that name a page below.
        """
        leaf = self._cells(number, _INDEX_LEAF)
        inner = ((page, place + 4) for page, place in self._cells(number, _INDEX_INNER, header_bytes=12))
        for page, start in chain(leaf, inner):
            try:
                size, place = _varint(page, start)
                content = page[place : place + size]
                if len(content) == size:
                    yield tuple(_values(content))
            except _Nonsense:
                continue

    def _cells(self, number: int, kind: int, header_bytes: int = 8) -> Iterator[tuple[bytes, int]]:
        """A page of this kind, and where each of its cells begins."""
        page = self._page(number)
        start = _FILE_HEADER_BYTES if number == 1 else 0
        if len(page) < self._page_bytes or page[start] != kind:
            return
        cells = min(int.from_bytes(page[start + 3 : start + 5]), self._page_bytes // 4)
        for index in range(cells):
            place = start + header_bytes + 2 * index
            yield page, int.from_bytes(page[place : place + 2])

    def _row(self, page: bytes, place: int) -> Row:
        size, place = _varint(page, place)
        rowid, place = _varint(page, place)
        if size > ROW_BYTES_MAX:
            raise _Nonsense
        local = _local_bytes(size, self._page_bytes)
        content = page[place : place + local]
        if local < size:
            content += self._overflow(int.from_bytes(page[place + local : place + local + 4]), size - local)
        if len(content) != size:
            raise _Nonsense
        return Row(rowid - (1 << 64) if rowid >= 1 << 63 else rowid, tuple(_values(content)))

    def _overflow(self, number: int, size: int) -> bytes:
        parts = []
        while size > 0:
            page = self._page(number)
            if len(page) < self._page_bytes:
                raise _Nonsense
            parts.append(page[4 : 4 + size])
            size -= len(parts[-1])
            number = int.from_bytes(page[:4])
        return b"".join(parts)

    def _page(self, number: int) -> bytes:
        if number in self._in_wal:
            return _read(self._wal, self._in_wal[number], self._page_bytes)
        return _read(self._file, (number - 1) * self._page_bytes, self._page_bytes) if number else b""

    def _page_size(self) -> int:
        in_file = int.from_bytes(_read(self._file, 16, 2))
        in_wal = int.from_bytes(_read(self._wal, 8, 4))
        for size in (65536 if in_file == 1 else in_file, in_wal):
            if size in (512, 1024, 2048, 4096, 8192, 16384, 32768, 65536):
                return size
        return PAGE_BYTES_USUAL

    def _committed(self) -> Iterator[tuple[int, int]]:
        """Page numbers in the WAL and where each lies, up to the last commit for which the checksums hold."""
        header = _read(self._wal, 0, _WAL_HEADER.size)
        if len(header) < _WAL_HEADER.size:
            return
        magic, _, page_bytes, _, *salts, sum_1, sum_2 = _WAL_HEADER.unpack(header)
        order = ">" if magic & 1 else "<"
        sums = _checksum(order, header[:24], (0, 0))
        if magic | 1 != _WAL_MAGIC | 1 or page_bytes != self._page_bytes or sums != (sum_1, sum_2):
            return
        pending: list[tuple[int, int]] = []
        place = _WAL_HEADER.size
        while True:
            frame = _read(self._wal, place, _FRAME_HEADER.size + page_bytes)
            if len(frame) < _FRAME_HEADER.size + page_bytes:
                return
            number, commit, *frame_salts, sum_1, sum_2 = _FRAME_HEADER.unpack_from(frame)
            sums = _checksum(order, frame[:8] + frame[_FRAME_HEADER.size :], sums)
            if frame_salts != salts or sums != (sum_1, sum_2) or not number:
                return
            pending.append((number, place + _FRAME_HEADER.size))
            if commit:
                yield from pending
                pending = []
            place += len(frame)


def _open(file: Path) -> int | None:
    try:
        return os.open(file, os.O_RDONLY)
    except FileNotFoundError:
        return None


def _read(descriptor: int | None, place: int, size: int) -> bytes:
    """Bytes of a file; fewer where it ends. What the card can't read is as good as not there."""
    if descriptor is None:
        return b""
    try:
        return os.pread(descriptor, size, place)
    except OSError:
        return b""


def _checksum(order: str, content: bytes, sums: tuple[int, int]) -> tuple[int, int]:
    first, second = sums
    words = iter(struct.unpack(f"{order}{len(content) // 4}I", content))
    for one, two in zip(words, words, strict=True):
        first = (first + one + second) & 0xFFFFFFFF
        second = (second + two + first) & 0xFFFFFFFF
    return first, second


def _local_bytes(size: int, usable: int) -> int:
    """How much of a row lies in the leaf itself."""
    if size <= usable - 35:
        return size
    least = (usable - 12) * 32 // 255 - 23
    fitting = least + (size - least) % (usable - 4)
    return fitting if fitting <= usable - 35 else least


def _varint(content: bytes, place: int) -> tuple[int, int]:
    value = 0
    for index, byte in enumerate(content[place : place + 9]):
        if index == 8:
            return value << 8 | byte, place + 9
        value = value << 7 | byte & 0x7F
        if byte < 0x80:
            return value, place + index + 1
    raise _Nonsense


def _values(content: bytes) -> Iterator[Value]:
    header_end, place = _varint(content, 0)
    body = header_end
    while place < header_end:
        kind, place = _varint(content, place)
        value, body = _value(content, kind, body)
        yield value
    if body != len(content):
        raise _Nonsense


def _value(content: bytes, kind: int, place: int) -> tuple[Value, int]:
    if kind in (0, 8, 9):
        return (None if kind == 0 else kind - 8), place
    size = _INTEGER_BYTES.get(kind, 8) if kind < 10 else (kind - 12) // 2
    end = place + size
    part = content[place:end]
    if kind in (10, 11) or len(part) != size:
        raise _Nonsense
    if kind >= 12:
        return part, end
    return (struct.unpack(">d", part)[0] if kind == 7 else int.from_bytes(part, signed=True)), end
