"""A look at the device: with everything in place, and with anything missing."""

import random
import sqlite3
from datetime import UTC, datetime
from pathlib import Path

import orjson
import pytest
from agent_kit import BUILT_ON, DEVICE, NOW, a_folder_for_all, a_token, as_account, open_spool, sale, write_config
from fakes import FakeClock

from agent.board import DaemonFacts
from agent.errors import LocalFault
from agent.screen import draw, draw_age
from agent.status import Places, Sight, look, status_of
from agent.verdict import Status

URL = "http://127.0.0.1:9"
FACTS = DaemonFacts(pid=1, version="1.0", started_at="2027-03-01T00:30:00.000Z")
NOBODY = 65534


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """Return a config with token and folder in place."""
    (tmp_path / "sales").mkdir()
    return write_config(tmp_path, URL)


def seen(config: Path, clock: FakeClock) -> Status:
    """What `status` sees."""
    sight = status_of(config, clock=clock, version="1.0")
    assert not sight.is_published
    return sight.status


def codes(status: Status) -> list[str]:
    """All problems."""
    return [problem.code for problem in (*status.broken, *status.attention)]


def fill(config: Path, clock: FakeClock) -> None:
    """One batch accepted, one sale not."""
    spool = open_spool(config.parent / "spool" / "spool.db", clock)
    spool.append([sale(1), sale(2)])
    spool.seal(NOW, BUILT_ON)
    batch = spool.next_waiting()
    assert batch
    spool.accept(batch, "endpoint")
    spool.append([sale(3)])
    spool.close()


def test_it_counts_what_the_spool_holds(config: Path, clock: FakeClock) -> None:
    """With the daemon dead as with it alive."""
    fill(config, clock)
    status = seen(config, clock)

    assert (status.device, status.running, codes(status)) == (DEVICE, False, ["not_running"])
    assert (status.rows_not_sent, status.rows_accepted, status.rows_last_hour) == (1, 2, 3)
    assert (status.last_accepted_by, status.last_settled_at) == ("endpoint", None)
    assert status.token_days_left == pytest.approx(23.9, abs=0.1)
    assert status.spool_bytes
    assert status.disk_free_bytes


def test_without_a_spool_and_a_token_it_still_answers(config: Path, clock: FakeClock) -> None:
    """A new device; nothing is made by looking."""
    (config.parent / "token").unlink()

    assert codes(seen(config, clock)) == ["not_running", "spool_missing", "token"]
    assert not (config.parent / "spool").exists()


def test_a_locked_a_damaged_and_a_foreign_spool_are_told_apart(config: Path, clock: FakeClock) -> None:
    """What to do differs: wait, tell, set the device's id back."""
    fill(config, clock)
    file = config.parent / "spool" / "spool.db"
    holder = sqlite3.connect(file, isolation_level=None)
    holder.execute("pragma locking_mode = exclusive")
    holder.execute("begin immediate")
    locked = seen(config, clock)
    holder.close()
    changing = sqlite3.connect(file)
    ours = changing.execute("pragma user_version").fetchone()[0]
    shapes = []
    for version in (ours - 1, ours + 1, ours):
        changing.execute(f"pragma user_version = {version}")
        shapes.append(codes(seen(config, clock)))
    changing.close()
    config.write_text(config.read_text().replace(DEVICE, "pi-06"))
    foreign = seen(config, clock)
    file.write_bytes(b"no database" * 500)
    damaged = seen(config, clock)

    assert codes(locked) == ["not_running", "spool_busy"]
    assert shapes == [["not_running", "spool_outdated"], ["not_running", "spool_newer"], ["not_running"]]
    assert codes(foreign) == ["not_running", "spool_of_other_device"]
    assert codes(damaged) == ["not_running", "spool_damaged"]
    assert (damaged.rows_last_hour, damaged.spool_version) == (None, None)


@pytest.mark.parametrize("seed", range(25))
def test_whatever_a_card_makes_of_the_spool_the_screen_comes(config: Path, clock: FakeClock, seed: int) -> None:
    """Bits flipped, pages of noise, a file cut short, an older page in place of another: seen or not, but told."""
    rng, file = random.Random(seed), config.parent / "spool" / "spool.db"
    fill(config, clock)
    content = bytearray(file.read_bytes())
    page = 4096 * rng.randrange(len(content) // 4096)
    match seed % 4:
        case 0:
            for _ in range(200):
                content[rng.randrange(100, len(content))] ^= 1 << rng.randrange(8)
        case 1:
            content[page : page + 4096] = rng.randbytes(4096)
        case 2:
            del content[rng.randrange(1, len(content)) :]
        case 3:
            content[page : page + 4096] = content[:4096]
    file.write_bytes(content)
    status = seen(config, clock)

    assert status.exit_status == 2
    assert draw(status)[-1].startswith("BROKEN")


@pytest.mark.parametrize("column", ["captured_at", "line"])
@pytest.mark.parametrize("garbage", ["'yesterday'", "cast(x'ff' as text)", "''"])
def test_a_garbled_record_hides_nothing_else(config: Path, clock: FakeClock, column: str, garbage: str) -> None:
    """The pages are whole, what they say is not: no exception may stand in the technician's way."""
    fill(config, clock)
    changing = sqlite3.connect(config.parent / "spool" / "spool.db")
    changing.execute(f"update records set {column} = {garbage}")  # noqa: S608
    changing.execute("update batches set accepted_at = 'noon'")
    changing.commit()
    changing.close()
    status = seen(config, clock)

    assert codes(status)[0] == "not_running"
    assert "\n".join(draw(status)).count("DO:") == len(codes(status))


@pytest.mark.parametrize(
    ("changed", "device", "rows"),
    [
        (("rows_max = 50", "rows_max = 0"), DEVICE, 1),
        (('id = "pi-05"', 'id = "Pi 5"'), "Pi 5", 1),
        (('id = "pi-05"', "id = 5"), DEVICE, 1),
        (("[device]", "[device"), None, 0),
    ],
)
def test_a_refused_config_hides_nothing_that_can_be_found(
    tmp_path: Path, clock: FakeClock, changed: tuple[str, str], device: str | None, rows: int
) -> None:
    """The technician sees the reason, and whether sales are in danger, as far as the file still tells where."""
    config = write_config(tmp_path, URL, batch={"rows_max": 50})
    fill(config, clock)
    config.write_text(config.read_text().replace(*changed))
    status = seen(config, clock)

    assert codes(status)[0] == "config_refused"
    assert str(config) in status.broken[0].message
    assert (status.device, status.rows_not_sent, status.exit_status) == (device, rows, 2)


def test_a_missing_config_says_so(tmp_path: Path, clock: FakeClock) -> None:
    """Before the first installation step is done, this step is all there is to say."""
    status = seen(tmp_path / "none.toml", clock)

    assert codes(status) == ["not_enrolled"]
    assert "does not exist" in status.broken[0].message
    assert "scout-agent enrol" in status.broken[0].next_step


def test_an_old_clock_and_an_expired_token(config: Path, clock: FakeClock) -> None:
    """Both are seen; neither is an error of this program."""
    clock.synced = False
    (config.parent / "token").write_text(a_token(datetime(2027, 2, 1, tzinfo=UTC)))
    status = seen(config, clock)

    assert not status.clock_synced
    assert status.token_days_left == pytest.approx(-28.1, abs=0.1)
    assert "token_due" in codes(status)


@pytest.mark.parametrize(
    ("bytes_max", "settled", "hours"),
    [(10_000_000, 0, 30), (10_000_000, 300, 31), (None, 0, None), (1, 0, 0)],
)
def test_hours_to_full_follow_the_recent_rate_and_the_nearer_limit(
    tmp_path: Path, clock: FakeClock, bytes_max: int | None, settled: int, hours: int | None
) -> None:
    """Settled sales make room first; without a cap the disk alone decides."""
    file = tmp_path / "spool.db"
    spool = open_spool(file, clock)
    spool.append([sale(number, note="x" * 700) for number in range(settled)])
    spool.seal(NOW, BUILT_ON)
    if batch := spool.next_waiting():
        spool.settle([batch], "2027-03-01T02:30:00.000Z")
    clock.pass_s(3601)
    spool.append([sale(number, note="x" * 700) for number in range(300)])
    spool.close()
    places = Places(DEVICE, file, tmp_path / "token", (), spool_bytes_max=bytes_max)
    status = look(places, running=True, daemon=FACTS, published=None, clock=clock, version="1.0")

    assert status.hours_to_full is not None
    if hours is None:
        assert status.hours_to_full > 100
    else:
        assert status.hours_to_full == pytest.approx(hours, rel=0.2, abs=0.1)


@pytest.mark.root
@pytest.mark.parametrize("closed", ["config.toml", "spool"])
def test_anybody_else_sees_what_the_daemon_published(closed: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A technician's own account: the last word, its age, and how to see more."""
    with a_folder_for_all() as home:
        (home / "sales").mkdir()
        (home / "run").mkdir()
        monkeypatch.setenv("RUNTIME_DIRECTORY", str(home / "run"))
        clock = FakeClock()
        config = write_config(home, URL)
        (home / "token").chmod(0o600)
        fill(config, clock)
        own = seen(config, clock)
        (home / closed).chmod(0o700 if closed == "spool" else 0o600)
        nothing = as_account(NOBODY, lambda: _refusal(config))
        (home / "run" / "status.json").write_bytes(_json(own))
        clock.pass_s(180)
        printed = as_account(NOBODY, lambda: "\n".join(_screen(status_of(config, clock=clock, version="1.0"))))

        assert nothing.endswith("no running agent has published its status. Run: sudo scout-agent status\n")
        assert "The agent itself saw this 3 minutes ago. To look now: sudo scout-agent status" in printed
        assert "not sent      1 sale" in printed
        assert "NOT RUNNING" in printed


@pytest.mark.root
def test_a_member_of_the_agents_group_sees_the_spool_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """But not the token: its expiry comes from what the daemon published."""
    with a_folder_for_all() as home:
        (home / "sales").mkdir()
        (home / "run").mkdir()
        monkeypatch.setenv("RUNTIME_DIRECTORY", str(home / "run"))
        clock = FakeClock()
        config = write_config(home, URL)
        fill(config, clock)
        (home / "run" / "status.json").write_bytes(_json(seen(config, clock)))
        (home / "token").chmod(0o600)
        (home / "spool" / "spool.db").chmod(0o644)
        (home / "spool").chmod(0o755)
        (home / "sales").chmod(0o700)
        printed = as_account(NOBODY, lambda: _facts(status_of(config, clock=clock, version="1.0")))

        assert printed == "False 1 24 ['not_running']\n"


def _refusal(config: Path) -> str:
    try:
        status_of(config, clock=FakeClock(), version="1.0")
    except LocalFault as fault:
        return str(fault)
    return "none"


def _json(status: Status) -> bytes:
    return orjson.dumps(status.to_fields())


def _screen(sight: Sight) -> list[str]:
    assert sight.is_published
    return [*draw(sight.status), *draw_age(sight.status, datetime(2027, 3, 1, 2, 33, tzinfo=UTC))]


def _facts(sight: Sight) -> str:
    status = sight.status
    assert status.token_days_left is not None
    return f"{sight.is_published} {status.rows_not_sent} {status.token_days_left:.0f} {codes(status)}"
