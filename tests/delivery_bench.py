"""A delivery loop on a fake clock, with a real spool and a real server on a socket."""

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent_kit import FakeServer, open_spool, sale, write_config
from fakes import FakeClock

from agent import config as configuration
from agent.board import Board, DaemonFacts
from agent.delivery import Delivery
from agent.spool import Spool
from agent.status import look, places_of
from agent.transport import client_of

DAY_S = 24 * 3600.0


@dataclass
class Bench:
    """A delivery loop with all that it touches."""

    delivery: Delivery
    board: Board
    spool: Spool
    server: FakeServer
    clock: FakeClock
    config: configuration.Config

    def sell(self, *numbers: int) -> None:
        """Each number becomes a sale and a batch of its own."""
        for number in numbers:
            self.spool.append([sale(number)])

    def run_for(self, seconds: float) -> None:
        """Let the loop run; it decides when to come back."""
        end_s = self.clock.monotonic_s() + seconds
        while self.clock.monotonic_s() <= end_s:
            self.clock.pass_s(self.delivery.step() + 0.001)

    def run_until_stored(self, wait_s: float = 0.0) -> float:
        """Let the loop run, beginning in `wait_s`, until the server has something; return how long that took."""
        start_s = self.clock.monotonic_s()
        while not self.server.stored:
            self.clock.pass_s(wait_s)
            wait_s = self.delivery.step()
        return self.clock.monotonic_s() - start_s

    def paths(self) -> list[str]:
        """Where deliveries went, in their order; calls home left out."""
        names = {"storage": "bucket", "ingest-transaction": "endpoint"}
        return [names[path.split("/")[1]] for path, _, _ in self.server.requests if "heartbeat" not in path]

    def fault(self) -> Any:
        """What the loop tells `status` while it runs."""
        return self.board.facts.last_fault

    def status(self) -> Any:
        """What a technician would see."""
        places = places_of(self.config)
        return look(places, running=False, daemon=None, published=None, clock=self.clock, version="test")


@contextmanager
def benches(home: Path, clock: FakeClock, server: FakeServer) -> Iterator[Callable[..., Bench]]:
    """Give a way to make a bench with other settings than the usual; close them all at the end."""
    opened: list[Bench] = []

    def made(**sections: dict[str, Any]) -> Bench:
        sections["batch"] = {"rows_max": 1, "age_max_s": 60.0} | sections.get("batch", {})
        config = configuration.load(write_config(home, server.url, **sections))
        (home / "sales").mkdir(exist_ok=True)
        spool = open_spool(config.spool_file, clock, seed=len(opened) + 1)  # no two boots draw alike
        board = Board(DaemonFacts(pid=1, version="test", started_at="2027-03-01T02:30:00.000Z"))
        delivery = Delivery(config, spool, client_of(config), board, clock=clock, rng=random.Random(1))
        bench = Bench(delivery, board, spool, server, clock, config)
        opened.append(bench)
        delivery.step()  # the first call home
        server.requests.clear()
        return bench

    yield made
    for bench in opened:
        bench.delivery.close()
        bench.spool.close()
