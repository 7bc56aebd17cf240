"""The tail source, on real files, with the real spool behind it."""

import errno
import os
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from agent_kit import open_spool, sale
from disks import tmpfs
from fakes import FakeClock
from structlog.testing import capture_logs
from tail_kit import a_tail, append, catch_up, copy_and_truncate, lines, rejected, settle, stored

from agent.errors import LocalFault
from agent.sources import listing, roll
from agent.sources.roll import RETRY_S
from agent.sources.tail import GROUP_BYTES, GROUP_FILES, TailSource
from agent.sources.turn import TURN_BYTES
from agent.spool import Spool
from wire.record import PAYLOAD_BYTES_MAX

MARKER = "Maria Clara"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return the folder that the till knows."""
    path = tmp_path / "till"
    path.mkdir()
    return path


@pytest.fixture
def sales(folder: Path) -> Path:
    """Return the file to which the till appends."""
    return folder / "sales.jsonl"


@pytest.fixture
def tail(folder: Path, spool: Spool, clock: FakeClock) -> Iterator[TailSource]:
    """Give a source whose notifications nobody hears: each test says when it looks."""
    silent = a_tail(folder, spool, clock)
    yield silent
    silent.close()


class Restarts:
    """The agent, which may be killed and started again at any time."""

    def __init__(self, folder: Path, spool: Spool, clock: FakeClock) -> None:
        self._folder, self._spool, self._clock = folder, spool, clock

    def catch_up(self) -> None:
        """Live for as long as there is something to do."""
        source = a_tail(self._folder, self._spool, self._clock)
        catch_up(source, self._clock)
        source.close()

    def settle(self) -> None:
        """Live for some minutes."""
        source = a_tail(self._folder, self._spool, self._clock)
        settle(source, self._clock)
        source.close()


@pytest.fixture
def lives(folder: Path, spool: Spool, clock: FakeClock) -> Restarts:
    """Give an agent that dies after each time that it worked."""
    return Restarts(folder, spool, clock)


# Lines


def test_lines_are_taken_as_they_come_and_the_file_stays_as_it_is(
    tail: TailSource, spool: Spool, sales: Path, clock: FakeClock
) -> None:
    """With CRLF and blank lines, of several files."""
    append(sales, b"\xef\xbb\xbf" + lines(1, 2))
    catch_up(tail, clock)
    assert stored(spool) == [1, 2]
    append(sales, sale(3) + b"\r\n\r\n")
    append(sales.with_name("other.jsonl"), lines(10))
    catch_up(tail, clock)

    assert sorted(stored(spool)) == [1, 2, 3, 10]
    assert sales.read_bytes() == b"\xef\xbb\xbf" + lines(1, 2) + sale(3) + b"\r\n\r\n"


def test_a_line_written_in_pieces_is_taken_once_and_whole(
    tail: TailSource, spool: Spool, sales: Path, clock: FakeClock
) -> None:
    """However long the till takes over it, and although a part of it is JSON too."""
    for piece in (b'{"transaction_id":"t-1"', b"}", b" ", b"\r"):
        append(sales, piece)
        settle(tail, clock)
        assert stored(spool) == []
    append(sales, b"\n")
    catch_up(tail, clock)

    assert stored(spool) == [1]
    assert rejected(sales.parent) == {}


def test_a_bad_line_is_set_beside_and_the_others_are_taken(
    tail: TailSource, spool: Spool, sales: Path, clock: FakeClock
) -> None:
    """With file, line and reason, in the agent's own folder; the customer is nowhere else."""
    bad = b'{"customer":"%s"' % MARKER.encode()
    append(sales, lines(1))
    catch_up(tail, clock)
    with capture_logs() as logs:
        append(sales, lines(2) + bad + b"\n" + lines(3) + b"17\n")
        catch_up(tail, clock)
    ((name, (content, reasons)),) = rejected(sales.parent).items()

    assert stored(spool) == [1, 2, 3]
    assert name.endswith(f"-sales.jsonl.from-{len(lines(1))}")
    assert content == bad + b"\n17"
    assert [line.partition(": ")[0] for line in reasons.splitlines()] == ["sales.jsonl, line 3", "sales.jsonl, line 5"]
    assert logs
    assert MARKER not in repr(logs) + reasons
    assert list(sales.parent.iterdir()) == [sales]


def test_a_line_without_end_is_refused_without_eating_memory_and_the_next_one_taken(
    tail: TailSource, spool: Spool, sales: Path, clock: FakeClock, lives: Restarts
) -> None:
    """Its beginning is kept, whether the agent lives on or is killed on the way."""
    append(sales, lines(1) + b'{"a":"' + b"x" * (5 * TURN_BYTES))
    catch_up(tail, clock)
    tail.close()
    append(sales, b"y" * TURN_BYTES)
    lives.catch_up()
    append(sales, b'"}\n' + lines(2))
    lives.catch_up()
    ((content, reasons),) = rejected(sales.parent).values()

    assert stored(spool) == [1, 2]
    assert content == b'{"a":"' + b"x" * (PAYLOAD_BYTES_MAX - 6)
    assert reasons == f"sales.jsonl, line 2: longer than {PAYLOAD_BYTES_MAX} bytes; only its beginning is kept here\n"


def test_limits_of_a_line_hold_to_the_byte(tail: TailSource, spool: Spool, sales: Path, clock: FakeClock) -> None:
    """1 MiB is taken; one byte more is refused, alone."""
    longest = sale(1)[:-1] + b',"f":"' + b"x" * (PAYLOAD_BYTES_MAX - len(sale(1)) - 7) + b'"}'
    append(sales, longest + b"\r\n" + longest[:-2] + b'x"}\n' + lines(2))
    catch_up(tail, clock)

    assert stored(spool) == [1, 2]
    assert [content[1] for content in rejected(sales.parent).values()] == [
        f"sales.jsonl, line 2: longer than {PAYLOAD_BYTES_MAX} bytes\n"
    ]


@pytest.mark.parametrize("nuls", [1, 4096, TURN_BYTES, 3 * TURN_BYTES + 5])
def test_nuls_that_a_power_cut_left_are_named_and_the_line_behind_them_is_taken(
    tail: TailSource, spool: Spool, sales: Path, clock: FakeClock, nuls: int
) -> None:
    """And not before that line is whole: what is NUL today may be written tomorrow."""
    append(sales, lines(1) + b"\0" * nuls)
    settle(tail, clock)
    assert rejected(sales.parent) == {}
    append(sales, lines(2) + b"\0" * 7 + lines(3))
    catch_up(tail, clock)

    assert stored(spool) == [1, 2, 3]
    ((_, reasons),) = rejected(sales.parent).values()
    assert [line.split()[3] for line in reasons.splitlines()] == [str(nuls), "7"]


def test_room_that_a_till_made_beforehand_is_read_when_it_is_filled(
    tail: TailSource, spool: Spool, sales: Path, clock: FakeClock
) -> None:
    """A file may be as long as it will get from the start."""
    sales.write_bytes(b"\0" * 10_000)
    catch_up(tail, clock)
    with sales.open("r+b") as till:
        till.write(lines(1))
        till.flush()
        catch_up(tail, clock)
        till.write(lines(2))
        till.flush()
        catch_up(tail, clock)

    assert stored(spool) == [1, 2]


@pytest.mark.parametrize("rest", [sale(2), b'{"transaction_id":"t-2"'])
@pytest.mark.parametrize("what", ["renamed", "renamed out of the pattern", "deleted", "moved away"])
def test_the_last_line_of_a_file_that_is_final_needs_no_line_feed(
    tail: TailSource, spool: Spool, sales: Path, clock: FakeClock, tmp_path: Path, *, rest: bytes, what: str
) -> None:
    """After it rested for a while: it is taken if it is a sale, and else refused where it can be seen."""
    append(sales, lines(1) + rest)
    settle(tail, clock)
    if what == "deleted":
        sales.unlink()
    elif what == "moved away":
        sales.rename(tmp_path / "sales.jsonl")
    else:
        sales.rename(sales.with_name("sales.1.jsonl" if what == "renamed" else "sales.jsonl.1"))
    catch_up(tail, clock)
    assert (stored(spool), rejected(sales.parent)) == ([1], {})
    settle(tail, clock)

    is_sale = rest == sale(2)
    assert stored(spool) == ([1, 2] if is_sale else [1])
    assert [content for content, _ in rejected(sales.parent).values()] == ([] if is_sale else [rest])


# Rotation

NEW_NAMES = ["sales.jsonl.1", "sales-2026-11-25.jsonl", "a.jsonl", "sales.jsonl-20261125", "\udcff\udcfe.jsonl"]


@pytest.mark.parametrize("name", NEW_NAMES)
@pytest.mark.parametrize("is_killed", [False, True])
def test_a_renamed_file_is_read_to_its_end_and_never_again(
    tail: TailSource, spool: Spool, sales: Path, clock: FakeClock, lives: Restarts, *, name: str, is_killed: bool
) -> None:
    """Also what the till appends to it afterwards; the new file is read from its start."""
    agent = tail if not is_killed else None

    def work() -> None:
        if agent:
            catch_up(agent, clock)
        else:
            lives.catch_up()

    append(sales, lines(1, 2))
    work()
    with sales.open("ab", buffering=0) as till:
        till.write(lines(3))
        sales.rename(sales.with_name(name))
        append(sales, lines(10))
        work()
        till.write(lines(4))
        work()
    append(sales, lines(11))
    work()

    assert sorted(stored(spool)) == [1, 2, 3, 4, 10, 11]


@pytest.mark.parametrize("name", NEW_NAMES)
@pytest.mark.parametrize("filler", [10, 3000])
@pytest.mark.parametrize("is_killed", [False, True])
def test_a_copy_is_read_on_where_its_truncated_original_was_left(
    tail: TailSource,
    spool: Spool,
    sales: Path,
    clock: FakeClock,
    lives: Restarts,
    *,
    name: str,
    filler: int,
    is_killed: bool,
) -> None:
    """What was in neither before is taken from the copy, and the original is read from its start."""
    append(sales, sale(1, f="x" * filler) + b"\n" + lines(2))
    catch_up(tail, clock)
    if is_killed:
        tail.close()
    append(sales, lines(3))
    copy_and_truncate(sales, sales.with_name(name))
    append(sales, lines(4) if filler == 10 else sale(4, f="x" * 5000) + b"\n")
    if is_killed:
        lives.settle()
    else:
        settle(tail, clock)

    assert sorted(stored(spool)) == [1, 2, 3, 4]
    assert rejected(sales.parent) == {}


def test_what_is_appended_between_copy_and_truncation_is_taken_once_although_the_agent_is_killed(
    spool: Spool, sales: Path, lives: Restarts
) -> None:
    """Then the copy is shorter than what was taken: it was seen before that was."""
    append(sales, lines(1, 2))
    lives.catch_up()
    shutil.copyfile(sales, sales.with_name("sales-1.jsonl"))
    append(sales, lines(3))
    lives.catch_up()
    sales.write_bytes(b"")
    append(sales, lines(4))
    lives.settle()

    assert sorted(stored(spool)) == [1, 2, 3, 4]


def test_a_copy_in_the_making_is_not_taken_for_a_till_s_file(
    tail: TailSource, spool: Spool, sales: Path, clock: FakeClock
) -> None:
    """However often it is looked at before it is whole, and although it ends within a line."""
    append(sales, lines(1, 2, 3) + sale(4)[:20])
    catch_up(tail, clock)
    content = sales.read_bytes()
    copy = sales.with_name("sales-1.jsonl")
    for end in [0, *range(len(lines(1)), len(content), 17)]:
        copy.write_bytes(content[:end])
        catch_up(tail, clock)
    copy.write_bytes(content)
    catch_up(tail, clock)
    sales.write_bytes(b"")
    append(sales, sale(4)[20:] + b"\n" + lines(5))
    settle(tail, clock)

    assert stored(spool) == [1, 2, 3, 5]
    halves = sorted(content for content, _ in rejected(sales.parent).values())
    assert halves == sorted([sale(4)[:20], sale(4)[20:]])


def test_a_copy_that_somebody_made_is_not_read_twice(
    tail: TailSource, spool: Spool, sales: Path, clock: FakeClock, lives: Restarts
) -> None:
    """Although the original is never truncated; what is appended to it later is."""
    append(sales, b"".join(sale(number, note="cash, no change") + b"\n" for number in range(40)))
    catch_up(tail, clock)
    shutil.copyfile(sales, sales.with_name("backup.jsonl"))
    settle(tail, clock)
    append(sales.with_name("backup.jsonl"), lines(100))
    append(sales, lines(101))
    settle(tail, clock)
    tail.close()
    lives.settle()

    assert sorted(stored(spool)) == [*range(40), 100, 101]


def test_a_file_that_turned_out_to_be_no_copy_is_known_as_an_original_at_once(
    tail: TailSource, spool: Spool, sales: Path, clock: FakeClock
) -> None:
    """It began like another, and was copied itself before anybody looked again."""
    other = sales.with_name("other.jsonl")
    append(sales, lines(1))
    catch_up(tail, clock)
    append(other, lines(1))
    catch_up(tail, clock)
    append(other, lines(2, 3))
    shutil.copyfile(other, sales.with_name("other-1.jsonl"))
    catch_up(tail, clock)
    other.write_bytes(b"")
    settle(tail, clock)

    assert sorted(stored(spool)) == [1, 1, 2, 3]


def test_a_rotated_copy_is_read_to_its_end_although_an_older_one_lies_beside_it(
    tail: TailSource, spool: Spool, sales: Path, clock: FakeClock
) -> None:
    """What somebody copied a moment before holds less."""
    append(sales, lines(*range(40)))
    catch_up(tail, clock)
    shutil.copyfile(sales, sales.with_name("backup.jsonl"))
    append(sales, lines(40))
    catch_up(tail, clock)
    append(sales, lines(41))
    copy_and_truncate(sales, sales.with_name("sales.jsonl.1"))
    settle(tail, clock)

    assert sorted(stored(spool)) == list(range(42))


def test_a_piece_of_a_line_is_no_copy_of_a_file_that_is_truncated_meanwhile(
    tail: TailSource, spool: Spool, sales: Path, clock: FakeClock
) -> None:
    """Every sale begins alike; the till that is slow to write one loses nothing, and the real copy is known."""
    other = sales.with_name("other.jsonl")
    append(sales, lines(1))
    catch_up(tail, clock)
    for cut, number in ((1, 2), (30, 3)):
        append(other, lines(number)[:cut])
        catch_up(tail, clock)
        copy_and_truncate(sales, sales.with_name(f"sales-{number}.jsonl"))
        if number == 3:
            append(other, lines(number)[cut:])
        catch_up(tail, clock)
        if number == 2:
            append(other, lines(number)[cut:])
        settle(tail, clock)
        append(sales, lines(number + 10))
        other.rename(other.with_name(f"other-{number}.jsonl"))
        settle(tail, clock)

    assert sorted(stored(spool)) == [1, 2, 3, 12, 13]
    assert rejected(sales.parent) == {}


def test_files_that_begin_alike_by_chance_are_both_taken(
    tail: TailSource, spool: Spool, folder: Path, clock: FakeClock
) -> None:
    """A till whose sales bear neither number nor time sells the same thing first two days running."""
    for day, count in (("monday", 2), ("tuesday", 1), ("wednesday", 5)):
        append(folder / f"{day}.jsonl", b'{"transaction_id":"t-5"}\n' * count)
        settle(tail, clock)
    (folder / "monday.jsonl").unlink()
    settle(tail, clock)
    append(folder / "thursday.jsonl", b'{"transaction_id":"t-5"}\n' * 3)
    settle(tail, clock)

    assert stored(spool) == [5] * 11


def test_what_comes_long_after_a_file_was_emptied_is_no_copy_of_it(
    tail: TailSource, spool: Spool, sales: Path, clock: FakeClock, lives: Restarts
) -> None:
    """A copy lies there before its original is truncated; another till may begin its file with the same sales."""
    append(sales, b'{"transaction_id":"t-5"}\n' * 2)
    settle(tail, clock)
    sales.write_bytes(b'{"transaction_id":"t-6"}\n')
    settle(tail, clock)
    append(sales.with_name("other.jsonl"), b'{"transaction_id":"t-5"}\n' * 3)
    settle(tail, clock)
    tail.close()
    append(sales.with_name("third.jsonl"), b'{"transaction_id":"t-5"}\n' * 2)
    lives.settle()

    assert stored(spool) == [5, 5, 6, 5, 5, 5, 5, 5]


def test_equal_files_in_turn_under_one_name_are_all_taken(
    tail: TailSource, spool: Spool, sales: Path, clock: FakeClock
) -> None:
    """Renamed daily: the new file is the till's, however it begins, and at once."""
    for day in range(3):
        append(sales, b'{"transaction_id":"t-5"}\n' * 2)
        catch_up(tail, clock)
        sales.rename(sales.with_name(f"sales-{day}.jsonl"))

    assert stored(spool) == [5] * 6


@pytest.mark.parametrize("how", ["renamed", "copied", "copied, then sold"])
def test_a_rotation_at_any_moment_of_a_step_neither_loses_nor_doubles(
    tmp_path: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch, *, how: str
) -> None:
    """Between any two calls by which the source sees a file, for a till waits for nobody."""
    reached, moment = True, 0
    while reached:
        folder, reached = tmp_path / f"{moment}" / "till", False
        folder.mkdir(parents=True)
        sales = folder / "sales.jsonl"
        spool = open_spool(folder.parent / "spool.db", clock)
        source = a_tail(folder, spool, clock)
        append(sales, lines(1, 2))
        catch_up(source, clock)
        append(sales, lines(3))
        with monkeypatch.context() as patched:
            calls = iter(range(moment + 1))

            def rotate() -> None:
                nonlocal reached
                if next(calls, -1) != moment:  # noqa: B023  (called here)
                    return
                patched.undo()
                reached = True
                if how == "renamed":
                    sales.rename(folder / "sales-1.jsonl")  # noqa: B023
                else:
                    copy_and_truncate(sales, folder / "sales-1.jsonl")  # noqa: B023
                if how != "copied":
                    append(sales, lines(4))  # noqa: B023

            for name in ("pread", "fstat", "scandir", "open", "fsync", "stat"):
                patched.setattr(os, name, _after(getattr(os, name), rotate))
            catch_up(source, clock)
        append(sales, lines(5))
        settle(source, clock)
        source.close()

        assert sorted(stored(spool)) == [1, 2, 3, *([4] if reached and how != "copied" else []), 5]
        assert rejected(folder) == {}
        spool.close()
        moment += 1
    assert moment > 15


def _after(call: Callable[..., Any], happen: Callable[[], None]) -> Callable[..., Any]:
    """Let something happen after each call."""

    def called(*arguments: Any, **named: Any) -> Any:
        result = call(*arguments, **named)
        happen()
        return result

    return called


# Other things that happen to files


@pytest.mark.parametrize("is_killed", [False, True])
@pytest.mark.parametrize(
    "content", [b"", lines(7), lines(7, 8), lines(7, 8, 9)], ids=["emptied", "shorter", "same size", "longer"]
)
def test_a_file_that_is_rewritten_is_read_from_its_start(
    tail: TailSource, spool: Spool, sales: Path, clock: FakeClock, lives: Restarts, *, content: bytes, is_killed: bool
) -> None:
    """In place, so that only what it holds tells."""
    append(sales, lines(1, 2))
    catch_up(tail, clock)
    sales.write_bytes(content)
    append(sales, lines(6))
    if is_killed:
        tail.close()
        lives.catch_up()
    else:
        catch_up(tail, clock)

    assert stored(spool) == [1, 2, *([7, 8, 9][: content.count(b"\n")]), 6]


def test_a_file_rewritten_within_one_tick_of_the_disks_clock_is_noticed(
    tail: TailSource, spool: Spool, sales: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also to the same size: what changed a moment ago may change again without looking different."""
    monkeypatch.setattr(listing, "signature_of", lambda status: (status.st_size, 0, 0))
    append(sales, lines(1))
    catch_up(tail, clock)
    sales.write_bytes(lines(7))
    catch_up(tail, clock)

    assert stored(spool) == [1, 7]


@pytest.mark.parametrize("is_killed", [False, True])
def test_a_file_replaced_under_its_name_is_read_from_its_start(
    tail: TailSource, spool: Spool, sales: Path, clock: FakeClock, lives: Restarts, *, is_killed: bool
) -> None:
    """Whether its inode is another one or the same again."""
    inodes: list[int] = []
    # Most file systems give a free one again at once, unless somebody else takes it meanwhile.
    while len(inodes) < 5 or (is_killed and len(set(inodes)) == len(inodes) < 50):
        append(sales, lines(len(inodes) + 1))
        inodes.append(sales.stat().st_ino)
        if is_killed:
            lives.catch_up()
        else:
            catch_up(tail, clock)
        sales.unlink()

    assert stored(spool) == list(range(1, len(inodes) + 1))
    assert not is_killed or len(set(inodes)) < len(inodes)


def test_a_file_written_anew_as_a_whole_with_more_is_read_on(
    tail: TailSource, spool: Spool, sales: Path, clock: FakeClock, lives: Restarts
) -> None:
    """By a till that saves all its sales under another name and renames: only what is new is taken."""
    count = 40
    append(sales, lines(*range(count)))
    catch_up(tail, clock)
    for number in range(count, count + 4):
        temporary = sales.with_name("sales.tmp")
        temporary.write_bytes(lines(*range(number + 1)))
        temporary.rename(sales)
        if number < count + 2:
            settle(tail, clock)
        else:
            tail.close()
            lives.settle()

    assert stored(spool) == list(range(count + 4))


def test_a_deleted_file_is_read_to_its_end_and_let_go(
    tail: TailSource, spool: Spool, sales: Path, clock: FakeClock
) -> None:
    """Through the descriptor, so that its room is free again soon."""
    append(sales, lines(1))
    catch_up(tail, clock)
    with sales.open("ab", buffering=0) as till:
        sales.unlink()
        till.write(lines(2))
        catch_up(tail, clock)
        till.write(lines(3))
        catch_up(tail, clock)
        inode = os.fstat(till.fileno()).st_ino
    settle(tail, clock)

    assert stored(spool) == [1, 2, 3]
    assert inode not in _open_inodes()


def _open_inodes() -> list[int]:
    """The inodes of all files that this process holds open."""
    found = []
    for path in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):
            found.append(path.stat().st_ino)
    return found


def test_marks_of_files_that_are_gone_stay_within_a_limit_and_open_files_too(
    tail: TailSource, spool: Spool, folder: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A till that makes a file a minute fills neither spool nor descriptors; those of files that are there stay."""
    monkeypatch.setattr(roll, "UNCLAIMED_MAX", 5)
    monkeypatch.setattr(roll, "OPEN_MAX", 3)
    append(folder / "kept.jsonl", lines(1000))
    opened = len(_open_inodes())
    for number in range(12):
        append(folder / f"{number}.jsonl", lines(number))
        settle(tail, clock)
    assert len(spool.tail_marks()) == 13
    assert len(_open_inodes()) <= opened + 3
    for number in range(12):
        (folder / f"{number}.jsonl").unlink()
    settle(tail, clock)

    assert [mark.name for mark in spool.tail_marks()] == [b"kept.jsonl", *(b"%d.jsonl" % n for n in range(7, 12))]
    assert sorted(stored(spool)) == [*range(12), 1000]


def test_what_was_unmounted_is_known_when_it_comes_back(
    spool: Spool, sales: Path, folder: Path, lives: Restarts, tmp_path: Path
) -> None:
    """The folder may be missing or empty meanwhile, and the agent started then."""
    append(sales, lines(1, 2))
    lives.catch_up()
    folder.rename(tmp_path / "unmounted")
    with pytest.raises(LocalFault, match=r"till: No such file or directory\. Check that the folder under \[tail\]"):
        lives.catch_up()
    folder.mkdir()
    lives.settle()
    folder.rmdir()
    (tmp_path / "unmounted").rename(folder)
    append(sales, lines(3))
    lives.settle()

    assert stored(spool) == [1, 2, 3]


def test_links_folders_and_pipes_are_left_alone(
    tail: TailSource, spool: Spool, folder: Path, clock: FakeClock, tmp_path: Path
) -> None:
    """Nothing outside the folder is read, and nothing that isn't a file can hold up a step."""
    outside = tmp_path / "outside.jsonl"
    outside.write_bytes(lines(1))
    (folder / "link.jsonl").symlink_to(outside)
    (folder / "broken.jsonl").symlink_to(tmp_path / "nowhere")
    (folder / "folder.jsonl").mkdir()
    (folder / "folder.jsonl" / "inner.jsonl").write_bytes(lines(2))
    os.mkfifo(folder / "pipe.jsonl")
    for name in (".hidden.jsonl", "sales.jsonl.gz", "sales.json", "sales.jsonl.tmp"):
        (folder / name).write_bytes(lines(3))
    append(folder / "sales.jsonl", lines(4))
    catch_up(tail, clock)
    (folder / "sales.jsonl").unlink()
    (folder / "sales.jsonl").symlink_to(outside)
    settle(tail, clock)

    assert stored(spool) == [4]


def test_the_folder_itself_may_be_a_link(spool: Spool, folder: Path, clock: FakeClock, tmp_path: Path) -> None:
    """And may come to lead elsewhere."""
    link = tmp_path / "link"
    link.symlink_to(folder)
    append(folder / "sales.jsonl", lines(1))
    woken = threading.Event()
    tail = a_tail(link, spool, clock, wake=woken.set)
    tail.start()
    catch_up(tail, clock)
    (tmp_path / "elsewhere").mkdir()
    link.unlink()
    link.symlink_to(tmp_path / "elsewhere")
    catch_up(tail, clock)
    woken.clear()
    append(tmp_path / "elsewhere" / "sales.jsonl", lines(2))
    assert woken.wait(20)
    catch_up(tail, clock)
    tail.close()

    assert stored(spool) == [1, 2]


def test_a_file_with_two_names_is_read_once(tail: TailSource, spool: Spool, sales: Path, clock: FakeClock) -> None:
    """Under whichever it is appended to or removed from."""
    append(sales, lines(1))
    sales.with_name("a.jsonl").hardlink_to(sales)
    catch_up(tail, clock)
    sales.unlink()
    append(sales.with_name("a.jsonl"), lines(2))
    catch_up(tail, clock)

    assert stored(spool) == [1, 2]


def test_names_may_be_any_bytes_and_as_long_as_they_get(
    tail: TailSource, spool: Spool, folder: Path, clock: FakeClock
) -> None:
    """Also where a line is refused."""
    names = [b"\xff\xfe\x01.jsonl", "ñandú 🥥.jsonl".encode(), b" .jsonl", b"a\nb.jsonl", b"x" * 249 + b".jsonl"]
    for number, name in enumerate(names):
        append(Path(os.fsdecode(os.fsencode(folder) + b"/" + name)), lines(number) + b"oops\n")
    catch_up(tail, clock)

    assert sorted(stored(spool)) == list(range(len(names)))
    assert len(rejected(folder)) == len(names)


def test_a_file_that_cannot_be_read_waits_and_stops_no_other(
    tail: TailSource, spool: Spool, folder: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bad sector under one file; it is tried again later."""
    for number in range(4):
        append(folder / f"{number}.jsonl", lines(number))
    catch_up(tail, clock)
    pread, bad = os.pread, (folder / "2.jsonl").stat().st_ino

    def failing(descriptor: int, count: int, offset: int) -> bytes:
        if os.fstat(descriptor).st_ino == bad:
            raise OSError(errno.EIO, "Input/output error")
        return pread(descriptor, count, offset)

    with monkeypatch.context() as patched, capture_logs() as logs:
        patched.setattr(os, "pread", failing)
        for number in range(4):
            append(folder / f"{number}.jsonl", lines(number + 10))
        catch_up(tail, clock)
        catch_up(tail, clock)
    assert sorted(stored(spool)) == [0, 1, 2, 3, 10, 11, 13]
    assert [log["event"] for log in logs].count("file_not_taken") == 1
    clock.pass_s(RETRY_S)
    catch_up(tail, clock)

    assert sorted(stored(spool)) == [0, 1, 2, 3, 10, 11, 12, 13]


# Steps and commits


def test_a_file_is_synced_before_its_mark_is_committed(
    tail: TailSource, spool: Spool, sales: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a power cut would take back what is marked as taken, or bring back what a truncation took."""
    fsync, append_records = os.fsync, Spool.append
    synced: list[tuple[int, int]] = []
    marked: list[tuple[int, int]] = []

    def noting(descriptor: int) -> None:
        fsync(descriptor)
        status = os.fstat(descriptor)
        synced.append((status.st_ino, status.st_size))

    def checking(self: Spool, payloads: list[bytes], notes: list[roll.TailMark]) -> int:
        for note in notes:
            is_truncated = note.inode in [inode for inode, _ in marked] and not note.bytes_taken
            if note.bytes_taken or is_truncated:
                assert any(inode == note.inode and size >= note.bytes_taken for inode, size in synced)
            marked.append((note.inode, note.bytes_taken))
        synced.clear()
        return append_records(self, payloads, notes)

    monkeypatch.setattr(os, "fsync", noting)
    monkeypatch.setattr(Spool, "append", checking)
    append(sales, lines(1))
    catch_up(tail, clock)
    append(sales, lines(2))
    catch_up(tail, clock)
    copy_and_truncate(sales, sales.with_name("sales.jsonl.1"))
    append(sales, lines(3))
    catch_up(tail, clock)

    assert len(marked) >= 5
    assert stored(spool) == [1, 2, 3]


@pytest.mark.parametrize("failing_at", range(6))
def test_an_append_that_fails_takes_nothing_and_is_repeated(
    tail: TailSource, spool: Spool, sales: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch, *, failing_at: int
) -> None:
    """At whichever commit: mark and sales are there together or not at all, and what was refused is there once."""
    append_records, calls = Spool.append, iter(range(100))

    def failing(self: Spool, payloads: list[bytes], notes: list[roll.TailMark]) -> int:
        if next(calls) == failing_at:
            raise LocalFault("the disk is full")
        return append_records(self, payloads, notes)

    monkeypatch.setattr(Spool, "append", failing)
    faults = 0
    append(sales, lines(1) + b"oops\n")
    for number in range(2, 8):
        try:
            catch_up(tail, clock)
        except LocalFault:
            faults += 1
        append(sales, lines(number))
        if number == 4:
            copy_and_truncate(sales, sales.with_name("sales-1.jsonl"))
    settle(tail, clock)

    assert faults == 1
    assert sorted(stored(spool)) == [1, 2, 3, 4, 5, 6, 7]
    assert len(rejected(sales.parent)) == 1


def test_no_room_for_what_is_refused_loses_nothing(spool: Spool, sales: Path, clock: FakeClock, tmp_path: Path) -> None:
    """The step says so and is repeated."""
    (tmp_path / "rejected").touch()
    tail = a_tail(sales.parent, spool, clock)
    append(sales, lines(1) + b"oops\n")
    with pytest.raises(LocalFault, match=r"rejected: File exists\. The agent must be able to write there"):
        catch_up(tail, clock)
    assert stored(spool) == []
    (tmp_path / "rejected").unlink()
    catch_up(tail, clock)
    tail.close()

    assert stored(spool) == [1]
    assert len(rejected(sales.parent)) == 1


def test_a_step_is_bounded_and_every_file_has_its_turn(
    tail: TailSource, spool: Spool, folder: Path, clock: FakeClock
) -> None:
    """A backlog of days in one file does not keep today's sale in another waiting."""
    filler = "x" * 100_000
    backlog = b"".join(sale(number, filler=filler) + b"\n" for number in range(GROUP_BYTES * 3 // 100_000))
    append(folder / "backlog.jsonl", backlog)
    for _ in range(3):
        clock.pass_s(tail.step())
    append(folder / "today.jsonl", lines(10_000))
    for _ in range(3):
        clock.pass_s(tail.step())
        assert spool.state().unsealed_rows * 100_000 <= 8 * TURN_BYTES
    assert 10_000 in stored(spool)
    assert len(stored(spool)) < backlog.count(b"\n")
    catch_up(tail, clock)

    assert sorted(stored(spool))[:-1] == list(range(backlog.count(b"\n")))


def test_thousands_of_files_met_at_once_share_commits(
    tail: TailSource, spool: Spool, folder: Path, clock: FakeClock
) -> None:
    """Of which none holds up the other sources: what one step syncs is bounded."""
    count = 3 * GROUP_FILES
    for number in range(count):
        append(folder / f"{number}.jsonl", lines(number))
    tail.step()
    for step in range(1, 4):
        clock.pass_s(1.0)
        tail.step()
        assert spool.state().head == step * GROUP_FILES
    assert sorted(stored(spool)) == list(range(count))
    assert tail.step() > 0


def test_a_till_that_writes_line_by_line_does_not_cost_a_commit_each(
    tail: TailSource, spool: Spool, sales: Path, clock: FakeClock
) -> None:
    """Each one syncs the card twice."""
    for number in range(100):
        append(sales, lines(number))
        tail.step()
        clock.pass_s(0.01)
    catch_up(tail, clock)

    assert stored(spool) == list(range(100))
    with spool._connection as connection:
        moments = connection.execute("select count(distinct captured_at) from records").fetchone()[0]
    assert 1 < moments < 12


def test_a_till_is_heard_at_once(spool: Spool, sales: Path, clock: FakeClock) -> None:
    """When it appends, and when it rotates; also in a folder that was made anew."""
    woken = threading.Event()
    tail = a_tail(sales.parent, spool, clock, wake=woken.set)
    with pytest.raises(LocalFault):
        a_tail(sales.parent / "none", spool, clock).start()
    tail.start()
    actions = [
        lambda: append(sales, lines(1)),
        lambda: append(sales, lines(2)),
        lambda: sales.rename(sales.with_name("sales.jsonl.1")),
        lambda: sales.with_name("sales.jsonl.1").unlink(),
    ]
    for act in actions:
        woken.clear()
        act()
        assert woken.wait(20)
        catch_up(tail, clock)
    shutil.rmtree(sales.parent)
    sales.parent.mkdir()
    catch_up(tail, clock)
    woken.clear()
    append(sales, lines(3))
    assert woken.wait(20)
    catch_up(tail, clock)
    tail.close()

    assert stored(spool) == [1, 2, 3]


@pytest.mark.root
def test_a_read_only_folder_is_followed(
    tail: TailSource, spool: Spool, folder: Path, sales: Path, clock: FakeClock
) -> None:
    """Nothing is written there, so nothing has to be; what is refused lies with the spool."""
    with tmpfs(folder):
        append(sales, lines(1) + b"oops\n")
        subprocess.run(["mount", "-o", "remount,ro", folder], check=True)
        catch_up(tail, clock)
        subprocess.run(["mount", "-o", "remount,rw", folder], check=True)
        append(sales, lines(2))
        sales.rename(sales.with_name("sales.jsonl.1"))
        subprocess.run(["mount", "-o", "remount,ro", folder], check=True)
        catch_up(tail, clock)
        tail.close()

    assert stored(spool) == [1, 2]
    assert len(rejected(folder)) == 1


@pytest.mark.root
def test_a_full_disk_takes_nothing_half(spool: Spool, sales: Path, clock: FakeClock, tmp_path: Path) -> None:
    """What is refused has no room: then the sales beside it wait too, for a line is taken or refused once."""
    tail = a_tail(sales.parent, spool, clock)
    with tmpfs(tmp_path / "rejected", size="1m") as place:
        filler = place / "filler"
        with pytest.raises(OSError, match="No space left"):
            filler.write_bytes(b"x" * 2_000_000)
        append(sales, lines(1) + b"x" * 100_000 + b"\n")
        for _ in range(2):
            with pytest.raises(LocalFault, match=r"rejected: No space left on device"):
                catch_up(tail, clock)
        filler.unlink()
        catch_up(tail, clock)
        append(sales, lines(2))
        catch_up(tail, clock)
        tail.close()

        assert stored(spool) == [1, 2]
        assert len(rejected(sales.parent)) == 1
