"""The spool seen from outside: right, cheap, and without a trace."""

import os
import sqlite3
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import pytest
from agent_kit import BUILT_ON, NOW, a_folder_for_all, as_account, environment, open_spool, sale
from fakes import FakeClock
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.errors import LocalFault, SpoolBusy, SpoolDamaged, SpoolMissing, SpoolOutdated, SpoolRefused
from agent.schema import VERSION
from agent.spool import Spool
from agent.spool_view import quick_check, view

NOBODY = 65534


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Return where the `spool` fixture keeps its file."""
    return tmp_path / "spool.db"


def damage(path: Path) -> None:
    """Overwrite the middle of a spool that nobody has open."""
    content = bytearray(path.read_bytes())
    content[len(content) // 3 : len(content) * 2 // 3] = os.urandom(len(content) * 2 // 3 - len(content) // 3)
    path.write_bytes(content)


@given(
    steps=st.lists(
        st.one_of(
            st.tuples(st.just("take"), st.integers(1, 7)),
            st.tuples(st.just("wait"), st.sampled_from([60, 1200, 3600, 7200])),
            st.tuples(st.just("boot"), st.just(0)),
        ),
        max_size=20,
    )
)
@settings(max_examples=30, deadline=None)
def test_sales_of_the_last_hour_are_counted_as_a_full_scan_counts_them(steps: list[tuple[str, int]]) -> None:
    """Across epochs, whatever was taken when."""
    clock, times, boots = FakeClock(), [], 1
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "spool.db"
        spool = open_spool(path, clock)
        for action, amount in steps:
            if action == "take":
                spool.append([sale(number) for number in range(amount)])
                times += [clock.now()] * amount
            elif action == "wait":
                clock.pass_s(amount + 0.5)
            else:
                boots += 1
                clock.reboot(f"boot-{boots}")
        seen = view(path, clock=clock)
        spool.close()

    assert seen.rows_last_hour == sum((clock.now() - at).total_seconds() <= 3600 for at in times)


@pytest.mark.parametrize("old_rows", [0, 1, 2])
def test_sales_of_the_last_hour_are_counted_where_an_epoch_was_salvaged(
    spool: Spool, file: Path, clock: FakeClock, old_rows: int
) -> None:
    """Its number is below 1, so its places are below 0: the search for the hour comes to its end there too."""
    for number in range(3):
        if number == old_rows:
            clock.pass_s(7200)
        spool.append([sale(number)])
    spool._connection.execute("update epochs set number = -1")
    spool._connection.execute("update records set place = place - 2000000000000")

    assert view(file, clock=clock).rows_last_hour == 3 - old_rows


def test_the_oldest_unsent_sale_is_what_nobody_else_holds(spool: Spool, file: Path, clock: FakeClock) -> None:
    """Accepted ones are not meant; set-aside ones are."""
    assert view(file, clock=clock).oldest_unsent_at is None
    spool.append([sale(1)])
    spool.seal(NOW, BUILT_ON)
    clock.pass_s(100)
    spool.append([sale(2)])
    first = view(file, clock=clock)
    batch = spool.next_waiting()
    assert batch
    spool.accept(batch, "bucket")
    second = view(file, clock=clock)
    spool.seal(NOW, BUILT_ON)
    waiting = spool.next_waiting()
    assert waiting
    spool.refuse(waiting, "no", refusals_max=1)
    clock.pass_s(50)
    third = view(file, clock=clock)

    assert (first.oldest_unsent_at, first.oldest_unsent_age_s) == ("2027-03-01T02:30:00.000Z", 100.0)
    assert (second.oldest_unsent_at, second.oldest_unsent_age_s) == ("2027-03-01T02:31:40.000Z", 0.0)
    assert third.oldest_unsent_age_s == 50.0
    assert third.version == VERSION


def test_the_age_of_a_sale_does_not_jump_with_the_wall_clock(spool: Spool, file: Path, clock: FakeClock) -> None:
    """A Pi boots in 1970 and learns the time later; after a boot an age that can't be is not given."""
    clock.now_is(datetime(1970, 1, 1, tzinfo=UTC))
    spool.append([sale(1)])
    clock.pass_s(30)
    clock.now_is(datetime(2027, 3, 1, tzinfo=UTC))
    same_boot = view(file, clock=clock)
    clock.reboot("boot-2")
    next_boot = view(file, clock=clock)

    assert same_boot.oldest_unsent_age_s == 30.0
    assert (next_boot.oldest_unsent_at, next_boot.oldest_unsent_age_s) == ("1970-01-01T00:00:00.000Z", None)


def test_the_bytes_of_a_sale_foretell_how_the_file_grows(spool: Spool, file: Path, clock: FakeClock) -> None:
    """Within a seventh: good enough for hours to full."""
    spool.append([sale(number, items=["rice"] * 30) for number in range(2000)])
    before = view(file, clock=clock)
    spool.append([sale(number, items=["rice"] * 30) for number in range(20_000)])
    spool.close()
    grown = file.stat().st_size - before.state.spool_bytes / 2  # until now half of it lies in the -wal file

    assert grown / 20_000 == pytest.approx(before.bytes_per_row, rel=1 / 7)


def test_looking_changes_nothing(spool: Spool, file: Path, clock: FakeClock) -> None:
    """Not a byte of the file."""
    spool.append([sale(1)])
    spool.close()
    before = file.read_bytes()
    view(file, clock=clock)
    assert quick_check(file, limit_s=60, clock=clock)

    assert file.read_bytes() == before
    assert view(file, clock=clock).state.unsealed_rows == 1


def test_each_trouble_with_the_file_is_told_apart(spool: Spool, file: Path, clock: FakeClock) -> None:
    """Missing, locked, damaged, no database at all: what to do differs."""
    with pytest.raises(SpoolMissing):
        view(file.with_name("none.db"), clock=clock)
    spool.append([sale(number) for number in range(500)])
    spool.close()
    holder = sqlite3.connect(file, isolation_level=None)
    holder.execute("pragma locking_mode = exclusive")
    holder.execute("begin immediate")
    with pytest.raises(SpoolBusy, match="locked by another process"):
        view(file, clock=clock)
    holder.close()
    damage(file)
    with pytest.raises(SpoolDamaged):
        quick_check(file, limit_s=60, clock=clock)
    file.write_bytes(b"this is no database" * 1000)
    with pytest.raises(SpoolDamaged, match="not a database"):
        view(file, clock=clock)
    file.unlink()
    file.mkdir()
    with pytest.raises(LocalFault, match="can't be read"):
        view(file, clock=clock)


@pytest.mark.parametrize(("step", "error"), [(1, SpoolRefused), (-1, SpoolOutdated)])
def test_a_spool_of_another_shape_is_not_asked(
    spool: Spool, file: Path, clock: FakeClock, step: int, error: type[Exception]
) -> None:
    """Between installing another version and restarting the daemon, `status` says so instead of failing."""
    spool.close()
    connection = sqlite3.connect(file)
    connection.execute(f"pragma user_version = {VERSION + step}")
    connection.close()

    with pytest.raises(error, match=f"spool version {VERSION + step}"):
        view(file, clock=clock)


def test_a_check_that_takes_too_long_is_given_up(spool: Spool, file: Path) -> None:
    """A big spool on a slow card must not keep a technician waiting."""

    class HurryingClock(FakeClock):
        def monotonic_s(self) -> float:
            self.pass_s(100)
            return super().monotonic_s()

    spool.append([sale(number) for number in range(20_000)])

    assert not quick_check(file, limit_s=10, clock=HurryingClock())


@pytest.mark.root
@pytest.mark.parametrize(("ends", "beside"), [("spool.close()", []), ("os._exit(9)", ["spool.db-shm", "spool.db-wal"])])
def test_who_may_only_read_sees_a_stopped_agents_spool(ends: str, beside: list[str]) -> None:
    """A member of the agent's group, who can't make the files beside it that SQLite would like to have."""
    with a_folder_for_all() as folder:
        code = (
            "import sys, os; sys.path[:0] = ['tests']; from agent_kit import *; from fakes import FakeClock\n"
            f"spool = open_spool(Path({str(folder / 'spool.db')!r}), FakeClock()); spool.append([sale(1)])\n"
        )
        subprocess.run([sys.executable, "-c", code + ends], env=environment(), check=False)
        (folder / "spool.db").chmod(0o644)
        look = partial(view, folder / "spool.db", clock=FakeClock())
        files = {path.name for path in folder.iterdir()}
        assert sorted(files - {"spool.db", "spool.lock"}) == beside
        printed = as_account(NOBODY, lambda: look().state.unsealed_rows)

        assert printed == "1\n"


@pytest.mark.root
def test_who_may_not_read_is_told_apart() -> None:
    """They see what the daemon published."""
    with a_folder_for_all() as folder:
        open_spool(folder / "spool.db", FakeClock()).close()
        (folder / "spool.db").chmod(0o600)
        printed = as_account(NOBODY, partial(_refusal, folder / "spool.db"))

        assert printed == "SpoolForbidden\n"


def _refusal(file: Path) -> str:
    try:
        view(file, clock=FakeClock())
    except LocalFault as fault:
        return type(fault).__name__
    return "none"
