"""Whether a file that nobody has met holds a content that is known.

May be relied on: nothing is taken for known unless its content says so, and never by content alone where that could
be chance. What can't be said because another file is just being changed, the next look says.
"""

import os
from collections.abc import Collection, Iterable
from dataclasses import replace

from agent.intake import TailMark
from agent.sources.listing import Entry
from agent.sources.proof import begin_alike, fits, has_line, says_enough
from agent.sources.tailed_file import FIRST_BYTES, TailedFile


class Changing(Exception):
    """Another file is being changed: what this one is shows at the next look."""


def continued_here(
    entry: Entry, descriptor: int, marks: Iterable[TailMark], present: Collection[int]
) -> TailMark | None:
    """Of marks without a file, the longest that goes on in this one; None when none does. Raises OSError.

    `present` are the inodes in the folder: when a mark's own is among them, its file was emptied or written anew,
    as is done after a copy. Under the mark's name, though, or when the file is gone, bytes must say enough.
    """
    fitting = [mark for mark in marks if 0 < mark.bytes_taken <= entry.size and fits(descriptor, mark)]
    for mark in sorted(fitting, key=lambda mark: mark.bytes_taken, reverse=True):
        was_emptied = mark.inode in present and mark.name != entry.name
        if was_emptied or says_enough(descriptor, mark.bytes_taken):
            return mark
    return None


def original_of(entry: Entry, descriptor: int, files: Iterable[TailedFile]) -> TailedFile | None:
    """The file of which this one may be a copy, finished or not; None when there is none. Raises Changing, OSError.

    A new file under the name of one that was renamed is the till's, however it begins; so is one without a whole
    line, for all sales begin alike, and no copy is written in such small pieces.
    """
    size = os.fstat(descriptor).st_size
    if not has_line(descriptor, size):
        return None
    first = os.pread(descriptor, FIRST_BYTES, 0)
    for file in files:
        both = min(len(first), len(file.first))
        may_be = not file.is_copy and file.mark.name != entry.name and both and first[:both] == file.first[:both]
        if may_be and begins_like(descriptor, size, file):
            return file
    return None


def begins_like(descriptor: int, size: int, original: TailedFile) -> bool:
    """Whether a file is the same as another for all its `size` bytes. Raises Changing, OSError."""
    try:
        is_alike = begin_alike(descriptor, original.open(), size)
        if not is_alike and not fits(original.open(), original.mark):
            raise Changing
    except FileNotFoundError:
        raise Changing from None
    return is_alike


def mark_of_copy(
    file: TailedFile,
    original: TailedFile | None,
    left: TailMark | None,
    present: Collection[int],
    *,
    is_settled: bool,
) -> TailMark:
    """The mark for a file that begins like another: of a copy still, or what it turned out to be.

    `original` is that other file, or `left` its mark once it holds something else or is gone; neither when it is
    forgotten. Raises Changing, OSError.
    """
    descriptor = file.open()
    size = os.fstat(descriptor).st_size
    new = TailMark(file.mark.number, file.mark.inode, file.name)
    if original is not None:
        if not begins_like(descriptor, size, original):
            return new
        if not is_settled or original.mark.bytes_taken < size:
            return replace(file.mark, bytes_taken=size)
        return replace(file.mark, bytes_taken=size, copy_of=None) if says_enough(descriptor, size) else new
    if left is None:
        return new
    if size >= left.bytes_taken:
        is_same, goes_on = fits(descriptor, left), replace(left, inode=file.mark.inode)
    else:
        # A copy shorter than what was taken was seen at its full length while the original was still whole.
        is_same = size == file.mark.bytes_taken
        goes_on = replace(left, inode=file.mark.inode, bytes_taken=size, skips_line=False)
    if is_same and (left.inode in present or says_enough(descriptor, goes_on.bytes_taken)):
        return goes_on
    return new
