"""Room on the card: what is refused, what is forgotten for it, and what never is."""

import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from agent_kit import BUILT_ON, DEVICE, NOW, FakeServer, environment, numbers_in, sale, until, write_config
from daemons import QUICK, Daemon, look, run_agent
from disks import SmallDisk, a_small_disk, fill
from fakes import FakeClock

from agent import config as configuration
from agent.clock import SystemClock
from agent.errors import Misconfigured, SpoolFull
from agent.space import Shortage, Space, SpaceLimits, disk_free_bytes, limits_of, size_of
from agent.spool import Spool

MB = 1024 * 1024
LIMITS = SpaceLimits(bytes_max=4 * MB, disk_free_bytes_min=0, reserve_bytes=MB)
SERVER_TIME = "2027-03-01T02:30:00.000Z"


class Told:
    """Remembers what was told."""

    def __init__(self) -> None:
        self.shortages: list[Shortage] = []
        self.why = ""

    def hear(self, shortage: Shortage, why: str) -> None:
        """Remember."""
        self.shortages.append(shortage)
        self.why = why


@pytest.fixture
def told() -> Told:
    """Give an ear."""
    return Told()


@pytest.fixture
def space(tmp_path: Path, told: Told) -> Space:
    """Give room for about three megabytes."""
    return Space(tmp_path / "spool.db", LIMITS, told.hear)


@pytest.fixture
def small(tmp_path: Path, space: Space, clock: FakeClock) -> Iterator[Spool]:
    """Give a spool within that room."""
    opened = Spool(tmp_path / "spool.db", DEVICE, clock=clock, rng=random.Random(1), space=space)
    yield opened
    opened.close()


def a_kilo(number: int) -> bytes:
    """A sale of about a thousand bytes."""
    return sale(number, filling="x" * 1000)


def fill_up(spool: Spool, first: int = 0) -> list[int]:
    """Sell until intake is refused; return what was acknowledged."""
    acknowledged: list[int] = []
    with pytest.raises(SpoolFull):  # noqa: PT012  (which append is refused is the limit's to say)
        while True:
            batch = list(range(first + len(acknowledged), first + len(acknowledged) + 20))
            spool.append([a_kilo(number) for number in batch])
            acknowledged += batch
    return acknowledged


def deliver(spool: Spool) -> list[int]:
    """Send everything; return what arrived."""
    spool.seal(NOW, BUILT_ON)
    arrived: list[int] = []
    while batch := spool.next_waiting():
        arrived += numbers_in(spool.body(batch))
        spool.accept(batch, "bucket")
    spool.settle(spool.awaited(1000), SERVER_TIME)
    return arrived


def on_disk(folder: Path) -> int:
    """What the spool's files take."""
    return sum(size_of(folder / name) for name in ("spool.db", "spool.db-wal", "spool.reserve"))


def test_a_spool_at_its_limit_refuses_and_drops_nothing(tmp_path: Path, small: Spool, space: Space, told: Told) -> None:
    """With numbers and what to do; what is undelivered stays, all of it."""
    space.keep_reserve()
    acknowledged = fill_up(small)
    assert LIMITS.bytes_max // 2 < on_disk(tmp_path) <= LIMITS.bytes_max
    assert told.shortages == [Shortage.REFUSING]
    assert "spool.bytes_max" in told.why
    assert "MB" in told.why
    with pytest.raises(SpoolFull, match="Check this shop's internet connection"):
        small.append([a_kilo(-1)] * 20)

    assert len(acknowledged) > 100
    assert deliver(small) == acknowledged


def test_at_the_limit_what_is_settled_makes_room_before_its_time(small: Spool, told: Told) -> None:
    """By itself, the oldest first, said once; over and over, the files never outgrow the limit."""
    sold: list[int] = []
    arrived: list[int] = []
    for _ in range(80):
        batch = [len(sold) + n for n in range(100)]
        small.append([a_kilo(number) for number in batch])
        sold += batch
        arrived += deliver(small)
        assert on_disk(small._path.parent) <= LIMITS.bytes_max
    state = small.state()

    assert arrived == sold
    assert 0 < state.settled_rows < len(sold)
    assert told.shortages == [Shortage.FORGETTING]


def test_a_shortage_ends_by_itself_and_is_told_again_when_it_returns(small: Spool, space: Space, told: Told) -> None:
    """No restart, nobody's hand."""
    first = fill_up(small)
    deliver(small)
    while small.forget("9999"):
        pass
    small.keep_room()
    assert not space.is_short
    second = fill_up(small, first[-1] + 1)

    assert told.shortages == [Shortage.REFUSING, Shortage.NONE, Shortage.REFUSING]
    assert deliver(small) == second


def test_the_disk_keeps_what_others_need(small: Spool, space: Space, told: Told) -> None:
    """And limits that are replaced count from the next sale on."""
    space.limits = replace(LIMITS, disk_free_bytes_min=1 << 60)
    with pytest.raises(SpoolFull, match=r"spool\.disk_free_bytes_min"):
        small.append([a_kilo(1)])
    space.limits = LIMITS
    assert small.append([a_kilo(1)]) == 1
    small.keep_room()

    assert told.shortages == [Shortage.REFUSING, Shortage.FORGETTING, Shortage.NONE]


def test_the_reserve_has_blocks_of_its_own(tmp_path: Path, space: Space) -> None:
    """A hole would be no reserve."""
    space.keep_reserve()
    status = (tmp_path / "spool.reserve").stat()

    assert status.st_size == LIMITS.reserve_bytes
    assert status.st_blocks * 512 >= LIMITS.reserve_bytes


def test_a_spool_smaller_than_two_batches_is_refused(tmp_path: Path) -> None:
    """And one that could never take the largest file; 0 follows from the disk."""
    for bytes_max, batch in ((MB, {}), (60 * MB, {"bytes_max": 16 * MB})):
        path = write_config(tmp_path, "http://127.0.0.1:1", spool={"bytes_max": bytes_max}, batch=batch)
        with pytest.raises(Misconfigured, match=r"spool\.bytes_max: must be at least \d+"):
            configuration.load(path)
    config = configuration.load(write_config(tmp_path, "http://127.0.0.1:1"))
    half = disk_free_bytes(tmp_path) // 2

    assert abs(limits_of(config).bytes_max - half) < half / 10


@dataclass
class Shop:
    """A daemon whose folder and spool lie on one small card. Config and log lie elsewhere."""

    disk: SmallDisk
    config: Path
    daemons: list[Daemon] = field(default_factory=list)

    @property
    def spool(self) -> Path:
        """Where the spool's files lie."""
        return self.disk.mount / "spool"

    @property
    def sales(self) -> Path:
        """Where the till drops files."""
        return self.disk.mount / "sales"

    def start(self) -> Daemon:
        """Start the daemon."""
        self.daemons.append(Daemon(self.config))
        return self.daemons[-1]

    def hand_in(self, first: int, files: int) -> list[int]:
        """Hand in files of 100 sales of about a kilobyte each."""
        self.sales.mkdir(exist_ok=True)
        numbers = list(range(first, first + files * 100))
        for start in range(0, len(numbers), 100):
            temporary = self.sales / f"day-{first + start}.tmp"
            temporary.write_bytes(b"".join(a_kilo(number) + b"\n" for number in numbers[start : start + 100]))
            temporary.rename(temporary.with_suffix(".jsonl"))
        return numbers

    def kill(self) -> None:
        """Kill what runs."""
        for daemon in self.daemons:
            daemon.process.kill()
            daemon.process.wait()


@pytest.fixture
def shop(tmp_path: Path, server: FakeServer) -> Iterator[Shop]:
    """Give a shop on a card of 24 MB, the spool at most half of it."""
    with a_small_disk(tmp_path, 24) as disk:
        settings = QUICK | {
            "spool": {
                "directory": str(disk.mount / "spool"),
                "bytes_max": 12 * MB,
                "disk_free_bytes_min": MB,
            },
            "batch": {"rows_max": 200, "bytes_max": 64 * 1024, "age_max_s": 0.05},
            "folder": {"path": str(disk.mount / "sales"), "settle_s": 0.2, "file_bytes_max": MB},
        }
        shop = Shop(disk, write_config(tmp_path, server.url, **settings))
        try:
            yield shop
        finally:
            shop.kill()


def busy(_path: str, _body: bytes) -> tuple[int, bytes]:
    """A server that takes nothing now."""
    return 503, b"busy"


@pytest.mark.root
def test_a_spool_at_its_limit_on_a_real_card_goes_on_by_itself(shop: Shop, server: FakeServer) -> None:
    """No server for long: intake is refused, files stay; the server returns: everything arrives once."""
    server.answer = busy
    daemon = shop.start()
    numbers = shop.hand_in(0, 100)
    until(lambda: "spool.bytes_max" in str(look(shop.config)[1]["broken"]), "the limit is reached")
    assert on_disk(shop.spool) <= 12 * MB
    assert list(shop.sales.rglob("*.jsonl"))
    server.answer = lambda _path, _body: None
    until(lambda: len(server.numbers()) >= len(numbers), "everything arrives", 60)

    assert sorted(server.numbers()) == numbers
    events = daemon.events()
    assert (
        1 <= events.count("intake_refused") <= 1 + events.count("space_ample") + events.count("settled_forgotten_early")
    )
    assert daemon.process.poll() is None


@pytest.mark.root
def test_a_card_filled_by_others_stops_intake_but_not_delivery(shop: Shop, server: FakeServer) -> None:
    """The reserve pays for accepting, settling and forgetting; once there is room, everything by itself."""
    server.answer = busy
    daemon = shop.start()
    first = shop.hand_in(0, 10)
    until(lambda: look(shop.config)[1]["rows_not_sent"] == len(first), "the sales are in the spool")
    hidden = shop.sales / "late.part"
    hidden.write_bytes(b"".join(a_kilo(number) + b"\n" for number in range(2000, 2100)))
    ballast = fill(shop.disk.mount)
    hidden.rename(shop.sales / "late.jsonl")
    until(lambda: "intake_refused" in daemon.events(), "intake is refused")
    server.answer = lambda _path, _body: None
    until(lambda: set(first) <= set(server.numbers()), "what is in the spool arrives", 60)
    until(lambda: look(shop.config)[1]["rows_accepted"] == 0, "it is settled", 60)
    assert shutil.disk_usage(shop.disk.mount).free < 4 * MB
    ballast.unlink()
    until(lambda: 2099 in server.numbers(), "the rest arrives", 60)
    until(lambda: size_of(shop.spool / "spool.reserve") > 0, "the reserve is back", 60)

    assert sorted(server.numbers()) == [*first, *range(2000, 2100)]
    assert daemon.process.poll() is None
    assert "Traceback" not in daemon.log.read_text()


@pytest.mark.root
def test_an_agent_that_starts_on_a_full_card_still_delivers(shop: Shop, server: FakeServer) -> None:
    """Opening a spool needs room too: the reserve is released before."""
    server.answer = busy
    daemon = shop.start()
    numbers = shop.hand_in(0, 1)
    until(lambda: look(shop.config)[1]["rows_not_sent"] == len(numbers), "the sales are in the spool")
    assert daemon.end(signal.SIGTERM) == 0
    fill(shop.disk.mount)
    server.answer = lambda _path, _body: None
    daemon = shop.start()
    until(lambda: len(server.numbers()) >= len(numbers), "they arrive", 60)

    assert sorted(server.numbers()) == numbers
    assert daemon.process.poll() is None


@pytest.mark.root
def test_a_card_that_turns_read_only_ends_nothing(shop: Shop, server: FakeServer) -> None:
    """The agent stays alive and says so; after the next boot everything acknowledged is there, once."""
    server.answer = busy
    daemon = shop.start()
    first = shop.hand_in(0, 3)
    until(lambda: look(shop.config)[1]["rows_not_sent"] == len(first), "the sales are in the spool")
    shop.disk.fail()
    server.answer = lambda _path, _body: None
    until(lambda: "local_fault" in daemon.events(), "it is said")
    assert run_agent(shop.config, "add", "-", given=sale(7)).returncode == 1
    assert daemon.process.poll() is None
    assert "Traceback" not in daemon.log.read_text()
    shop.kill()
    shop.disk.reboot()
    second = shop.hand_in(1000, 1)
    daemon = shop.start()
    until(lambda: len(server.numbers()) >= len(first + second), "they arrive", 60)

    assert sorted(server.numbers()) == first + second
    assert daemon.process.poll() is None


STUBBORN = """
import random, sys
from pathlib import Path
from agent.clock import SystemClock
from agent.errors import LocalFault
from agent.spool import Spool
from agent_kit import sale
spool = Spool(Path(sys.argv[1]), "pi-05", clock=SystemClock(), rng=random.SystemRandom())
faults = number = 0
while number < 60:
    try:
        spool.append([sale(number, filling="x" * 3000)])
    except LocalFault as fault:
        assert "disk I/O error" in str(fault), fault
        faults += 1
    else:
        print(number, flush=True)
        number += 1
print("faults", faults, flush=True)
spool.close()
"""


@pytest.mark.root
@pytest.mark.parametrize("call", ["fdatasync:error=EIO:when=9+4", "pwrite64:error=EIO:when=40+61"])
def test_a_card_that_fails_to_write_now_and_then_loses_and_doubles_nothing(tmp_path: Path, call: str) -> None:
    """A commit that failed left nothing half; the same sale is tried again, and is stored once."""
    assert shutil.which("strace"), "install strace (apt-get install strace)"
    path = tmp_path / "spool.db"
    Spool(path, DEVICE, clock=SystemClock(), rng=random.Random(1)).close()
    tracing = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", "trace=fdatasync,pwrite64", "-e", f"inject={call}"]
    done = subprocess.run(
        [*tracing, sys.executable, "-c", STUBBORN, str(path)],
        check=False,
        capture_output=True,
        text=True,
        env=environment(),
        timeout=60,
    )
    *acknowledged, faults = done.stdout.splitlines()
    with_all = Spool(path, DEVICE, clock=SystemClock(), rng=random.Random(1))
    numbers = deliver(with_all)
    with_all.close()

    assert done.returncode == 0, done.stderr
    assert int(faults.split()[1]) >= 3
    assert [int(number) for number in acknowledged] == numbers == list(range(60))
