"""Long outages, on a fake clock: a day of tries, a reboot, another token or another version meanwhile."""

import sqlite3
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import fault_proxy
import pytest
from agent_kit import DEVICE, FakeServer, a_server, a_token, open_spool, sale
from delivery_bench import DAY_S, Bench, benches
from fakes import FakeClock
from fault_proxy import FaultProxy
from sqlite_utils import Database, Migrations

from agent import schema
from agent.errors import SpoolRefused
from wire.batch import BatchName, content_hash
from wire.record import Record, to_line

RECORDS = 100_000
SLOW = {
    "heartbeat": {"interval_s": 1800.0},
    "batch": {"rows_max": 2000, "age_max_s": 1800.0},
    "upload": {"retry_wait_max_s": 1800.0},
}
Make = Callable[..., Bench]


@pytest.fixture
def clock() -> FakeClock:
    """Return a clock that moves when told to."""
    return FakeClock()


@pytest.fixture
def server() -> Iterator[FakeServer]:
    """Give a server on a real socket."""
    with a_server() as running:
        yield running


@pytest.fixture
def line(server: FakeServer) -> Iterator[FaultProxy]:
    """Give the shop's line to the server, which can be cut."""
    proxy = FaultProxy(int(server.url.rpartition(":")[2]))
    server.url = f"http://127.0.0.1:{proxy.port}"
    yield proxy
    proxy.close()


@pytest.fixture
def make(tmp_path: Path, clock: FakeClock, server: FakeServer, line: FaultProxy) -> Iterator[Make]:  # noqa: ARG001
    """Give a way to start the delivery loop, once or after a reboot."""
    with benches(tmp_path, clock, server) as made:
        yield made


def test_after_a_day_without_a_line_everything_drains_without_a_restart(make: Make, line: FaultProxy) -> None:
    """A hundred thousand sales, the oldest first, each once, and settled."""
    bench = make(**SLOW)
    line.begin(fault_proxy.lost)
    for first in range(0, RECORDS, 1000):
        bench.spool.append([sale(number) for number in range(first, first + 1000)])
    bench.run_for(DAY_S)
    state = bench.spool.state()
    assert (state.waiting_rows, state.batches_waiting) == (RECORDS, RECORDS // 2000)
    assert line.met > 50
    line.begin(None)
    bench.run_for(2 * 3600.0)

    assert bench.server.numbers() == list(range(RECORDS))
    assert bench.spool.state().settled_rows == RECORDS
    assert bench.fault() is None


def test_a_reboot_while_offline_loses_nothing_and_keeps_the_order(
    make: Make, line: FaultProxy, clock: FakeClock
) -> None:
    """Each boot has its epoch, and the clock may be wrong after it."""
    line.begin(fault_proxy.lost)
    for boot in range(3):
        bench = make(upload={"retry_wait_max_s": 5.0})
        bench.sell(*range(10 * boot, 10 * boot + 5))
        bench.run_for(600.0)
        clock.reboot(f"boot-{boot}-again")
        clock.synced = False
        clock.now_is(clock.now() - timedelta(days=9000))
    bench = make(upload={"retry_wait_max_s": 5.0})
    line.begin(None)
    bench.run_for(300.0)

    assert bench.server.numbers() == [10 * boot + number for boot in range(3) for number in range(5)]
    assert len({BatchName.parse(key).epoch for key in bench.server.stored}) == 3
    assert bench.spool.state().settled_rows == 15


def test_a_token_that_expires_while_offline_and_is_replaced_needs_no_restart(
    make: Make, line: FaultProxy, tmp_path: Path
) -> None:
    """Neither when it is replaced before the line is back nor after."""
    bench = make(upload={"retry_wait_max_s": 5.0})
    for replaced_first in (True, False):
        line.begin(fault_proxy.lost)
        bench.sell(1 + replaced_first)
        bench.run_for(600.0)
        bench.clock.pass_s(40 * DAY_S)
        bench.server.answer = refusing_expired(bench)
        new = a_token(bench.clock.now() + timedelta(days=30))
        if replaced_first:
            (tmp_path / "token").write_text(new)
            line.begin(None)
        else:
            line.begin(None)
            bench.run_for(300.0)
            assert 1 not in bench.server.numbers()
            (tmp_path / "token").write_text(new)
        bench.run_for(60.0)

    assert bench.server.numbers() == [2, 1]


def refusing_expired(bench: Bench) -> Callable[[str, bytes], tuple[int, bytes] | None]:
    """Script a server that reads tokens: what is over is refused."""
    import jwt  # noqa: PLC0415

    def answer(_path: str, _body: bytes) -> tuple[int, bytes] | None:
        token = bench.server.requests[-1][1]["Authorization"].removeprefix("Bearer ")
        expires = jwt.decode(token, options={"verify_signature": False})["exp"]
        return (401, b"{}") if expires <= bench.clock.now().timestamp() else None

    return answer


def test_an_upgrade_while_offline_sends_what_the_older_version_left(
    make: Make, line: FaultProxy, tmp_path: Path, clock: FakeClock
) -> None:
    """Byte for byte under the names that it gave; the older version then leaves the file alone."""
    jsonl = write_first_version(tmp_path / "spool" / "spool.db")
    line.begin(fault_proxy.lost)
    bench = make(upload={"retry_wait_max_s": 5.0})
    bench.sell(4)
    bench.run_for(60.0)
    line.begin(None)
    bench.run_for(60.0)

    assert bench.server.numbers() == [1, 2, 3, 4]
    assert next(iter(bench.server.stored.values())) == jsonl
    with sqlite3.connect(tmp_path / "spool" / "spool.db") as connection:
        connection.execute(f"pragma user_version = {schema.VERSION + 1}")
    connection.close()
    with pytest.raises(SpoolRefused, match="newer agent"):
        open_spool(tmp_path / "spool" / "spool.db", clock)


def write_first_version(path: Path) -> bytes:
    """Write a spool as the first released version did, with one batch that waits; return the batch."""
    lines = [
        to_line(
            Record(
                seq=seq,
                id=f"0192f0a0-0000-7000-8000-00000000000{seq}",
                captured_at="2027-02-28T08:00:00.000Z",
                clock="synced",
                boot="boot-0",
                mono_ms=seq,
                payload=sale(seq),
            )
        )
        for seq in (1, 2, 3)
    ]
    jsonl = b"".join(line + b"\n" for line in lines)
    sha256 = content_hash(jsonl)
    name = BatchName(FakeClock().now().date(), DEVICE, "00000000000000aa", 1, 3, sha256[:16])
    path.parent.mkdir()
    connection = sqlite3.connect(path, isolation_level=None)
    database = Database(connection)
    migrations = Migrations("scout-spool")
    migrations(name=schema.STEPS[0])(schema._step(schema.STEPS[0], 1))
    migrations.apply(database)
    rows: dict[str, list[dict[str, Any]]] = {
        "device": [{"only_row": 1, "device_id": DEVICE}],
        "epochs": [
            {"number": 1, "epoch": name.epoch, "boot": "boot-0", "opened_at": "x", "head": 3, "sealed_to": 3},
        ],
        "records": [
            {"place": 10**12 + seq, "captured_at": "2027-02-28T08:00:00.000Z", "line": line.decode()}
            for seq, line in enumerate(lines, start=1)
        ],
        "batches": [
            {
                "epoch_number": 1,
                "first_seq": 1,
                "last_seq": 3,
                "key": name.key,
                "sha256": sha256,
                "bytes": len(jsonl),
                "sealed_at": "2027-02-28T08:01:00.000Z",
            }
        ],
    }
    for table, values in rows.items():
        database[table].insert_all(values)
    connection.close()
    return jsonl
