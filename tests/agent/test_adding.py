"""`add`: one commit for what fits into memory, exact steps for what doesn't, and nothing half."""

import io
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import IO

import pytest
from agent_kit import environment, sale, until, write_config
from hypothesis import given
from hypothesis import strategies as st

from agent.adding import GROUP_BYTES, RefusedSale, Tally, add_sales
from agent.errors import LocalFault
from agent.intake import Note
from wire.framing import split_lines
from wire.record import PAYLOAD_BYTES_MAX, RefusedPayload, parse_payload

COMMAND = [sys.executable, "-c", "from agent.cli import main; main()"]


class FakeStore:
    """Keeps what is appended, one list a commit; full after some."""

    def __init__(self, commits_max: int = 10**6) -> None:
        self.commits: list[list[bytes]] = []
        self._commits_max = commits_max

    def append(self, payloads: Sequence[bytes], notes: Sequence[Note] = ()) -> int:
        """Store, unless full."""
        assert not notes
        if len(self.commits) >= self._commits_max:
            raise LocalFault("full")
        self.commits.append(list(payloads))
        return len(payloads)

    @property
    def payloads(self) -> list[bytes]:
        """All of them."""
        return [payload for commit in self.commits for payload in commit]


def added(
    content: bytes,
    *,
    lines_only: bool = True,
    bytes_max: int = 1000,
    from_line: int = 1,
    store: FakeStore | None = None,
) -> tuple[FakeStore, Tally, list[RefusedSale]]:
    """Add a text."""
    store, tally, refused = store or FakeStore(), Tally(), []
    add_sales(
        store,
        io.BytesIO(content),
        tally,
        lines_only=lines_only,
        document_bytes_max=bytes_max,
        from_line=from_line,
        told=refused.append,
        moved=lambda _bytes: None,
    )
    return store, tally, refused


def is_sale(text: bytes) -> bool:
    """Whether a line would be taken."""
    try:
        parse_payload(text)
    except RefusedPayload:
        return False
    return True


lines = st.lists(
    st.one_of(
        st.integers(0, 99).map(sale),
        st.sampled_from([b"", b"  ", b"rubbish", b"[1]", b'{"a":1}\r', b"\xff", b'{"a":"' + b"x" * 3000 + b'"}']),
    ),
    max_size=40,
)


@given(written=lines, ends=st.booleans(), bytes_max=st.integers(0, 3000), from_line=st.integers(1, 40))
def test_however_long_it_is_the_same_is_stored_and_refused(
    written: list[bytes], *, ends: bool, bytes_max: int, from_line: int
) -> None:
    """In one commit or in steps, each line is judged as if it stood alone; lines before the first are left out."""
    content = b"\n".join(written) + (b"\n" if ends else b"")
    pieces = [piece for piece in split_lines(content) if piece.line >= from_line]
    store, tally, refused = added(content, bytes_max=bytes_max, from_line=from_line)

    assert store.payloads == [piece.text for piece in pieces if is_sale(piece.text)]
    assert [each.line for each in refused] == [piece.line for piece in pieces if not is_sale(piece.text)]
    assert (tally.rows, tally.refused) == (len(store.payloads), len(refused))


def test_what_fits_is_one_commit_and_what_does_not_is_many() -> None:
    """The bound is folder.file_bytes_max, as for the folder."""
    content = b"".join(sale(number, note="x" * 1000) + b"\n" for number in range(3 * GROUP_BYTES // 1000))
    whole, _, _ = added(content, bytes_max=len(content))
    steps, tally, _ = added(content, bytes_max=len(content) - 1)

    assert len(whole.commits) == 1
    assert len(steps.commits) >= 3
    assert steps.payloads == whole.payloads
    assert tally.line == content.count(b"\n")
    assert max(sum(map(len, commit)) for commit in steps.commits) <= GROUP_BYTES + 2000


def test_a_line_that_never_ends_is_refused_in_little_memory() -> None:
    """And the next one is taken, under its own number."""
    endless = b'{"a":"' + b"x" * (3 * GROUP_BYTES) + b'"}'
    assert len(endless) > PAYLOAD_BYTES_MAX
    store, tally, refused = added(sale(1) + b"\n" + endless + b"\n" + sale(3) + b"\n")

    assert store.payloads == [sale(1), sale(3)]
    assert [(each.line, each.reason) for each in refused] == [(2, f"longer than {PAYLOAD_BYTES_MAX} bytes")]
    assert tally.line == 3


@pytest.mark.parametrize("content", [b"[" + b"1," * 1000 + b"1]", b'{\n"a":\n' + b"1" * 2000 + b"}", b"x" * 2000])
def test_what_is_too_long_and_no_jsonl_is_refused_whole(content: bytes) -> None:
    """Nothing of it is stored; the message says what to do."""
    store = FakeStore()
    with pytest.raises(LocalFault, match="Split it, or write it as JSONL"):
        added(content, lines_only=False, store=store)
    assert store.commits == []


def test_a_long_text_of_whole_sales_is_jsonl_under_any_name() -> None:
    """Standard input has no name."""
    content = b"".join(sale(number) + b"\n" for number in range(100))
    store, _, _ = added(content, lines_only=False)

    assert store.payloads == [sale(number) for number in range(100)]


def test_a_spool_that_fills_leaves_an_exact_tally() -> None:
    """What was stored can be left out the next time."""
    content = b"".join(sale(number, note="x" * 1000) + b"\n" for number in range(3 * GROUP_BYTES // 1000))
    store, tally = FakeStore(commits_max=2), Tally()
    with pytest.raises(LocalFault):
        add_sales(
            store,
            io.BytesIO(content),
            tally,
            lines_only=True,
            document_bytes_max=10,
            told=lambda _sale: None,
            moved=lambda _bytes: None,
        )
    rest, _, _ = added(content, bytes_max=10, from_line=tally.line + 1)

    assert tally.rows == len(store.payloads) > 0
    assert store.payloads + rest.payloads == [line for line in content.splitlines() if line]


# The command itself.


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """Return a config under which 1 MiB is the most that is held whole."""
    return write_config(tmp_path, "http://127.0.0.1:9", folder={"file_bytes_max": 1024 * 1024})


def stored(config: Path) -> list[int]:
    """The numbers of the sales in the spool."""
    with closing(sqlite3.connect(f"file:{config.parent}/spool/spool.db?mode=ro", uri=True)) as connection:
        texts = connection.execute("select line from records order by place").fetchall()
    return [int(json.loads(line)["payload"]["transaction_id"][2:]) for (line,) in texts]


def has_begun(config: Path) -> bool:
    """Whether anything is stored yet; the spool itself may still be in the making."""
    try:
        return bool(stored(config))
    except sqlite3.OperationalError:
        return False


def feed(pipe: IO[bytes], numbers: range) -> None:
    """Write sales of about 10 KB each."""
    for number in numbers:
        pipe.write(sale(number, note="x" * 10_000) + b"\n")
    pipe.flush()


def start(config: Path, *arguments: str) -> subprocess.Popen[bytes]:
    """Start `add -`."""
    return subprocess.Popen(
        [*COMMAND, "add", "-", "--config", str(config), *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(),
    )


def test_ctrl_c_says_exactly_how_far_it_got(config: Path) -> None:
    """Exit 130; the rest, from the line that it names, completes the file without one sale twice."""
    adding = start(config)
    assert adding.stdin
    assert adding.stdout
    assert adding.stderr
    feed(adding.stdin, range(1, 2001))
    until(lambda: has_begun(config), "a step is stored")
    adding.send_signal(signal.SIGINT)
    assert adding.wait(30) == 130
    said = adding.stderr.read().decode()
    for pipe in (adding.stdin, adding.stdout, adding.stderr):
        pipe.close()
    done = stored(config)
    assert f"{len(done):,} sales are stored, all up to line {done[-1]}." in said
    assert f"To go on: add --from-line {done[-1] + 1}" in said
    assert "Traceback" not in said
    again = start(config, "--from-line", str(done[-1] + 1))
    assert again.stdin
    feed(again.stdin, range(1, 2001))
    out, _ = again.communicate()

    assert again.returncode == 0
    assert out == f"{2000 - len(done)} sales stored\n".encode()
    assert stored(config) == list(range(1, 2001))


def test_a_long_file_costs_no_more_memory_than_a_short_one(config: Path) -> None:
    """Twenty-five times as much data; a Pi has other things to do."""
    peaks = []
    for megabytes in (2, 50):
        adding = start(config)
        assert adding.stdin
        assert adding.stdout
        assert adding.stderr
        feed(adding.stdin, range(megabytes * 100))
        adding.stdin.close()
        _, status, usage = os.wait4(adding.pid, 0)
        adding.returncode = os.waitstatus_to_exitcode(status)
        for pipe in (adding.stdout, adding.stderr):
            pipe.close()
        assert adding.returncode == 0
        peaks.append(usage.ru_maxrss)

    assert peaks[1] - peaks[0] < 16 * 1024  # KiB


def test_a_file_of_rubbish_shows_some_reasons_and_counts_all(config: Path, tmp_path: Path) -> None:
    """Nobody reads ten thousand of them."""
    rng = random.Random(7)
    file = tmp_path / "rubbish.jsonl"
    file.write_bytes(b"".join(b"rubbish %d\n" % rng.getrandbits(64) for _ in range(10_000)) + sale(1))
    done = subprocess.run(
        [*COMMAND, "add", str(file), "--config", str(config)], capture_output=True, check=False, env=environment()
    )

    assert done.returncode == 1
    assert done.stdout == b"1 sales stored, 10000 refused\n"
    assert len(done.stderr.splitlines()) == 20
    assert done.stderr.decode().startswith(f"{file}, line 1: not valid JSON")
