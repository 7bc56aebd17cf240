"""The agent is killed again and again while files keep arriving and the server comes and goes."""

import json
import random
import threading
from collections.abc import Callable

from house import Server, Shop, stop, wait_until_drained
from sales import sales

KILLS = 110
SERVER_TROUBLES = 5
LIFE_S = (0.05, 1.0)
SEED = 20261123


class Feeder(threading.Thread):
    """A till that goes on selling until it is told to close."""

    def __init__(self, shop: Shop, rng: random.Random) -> None:
        super().__init__(name="till")
        self._shop = shop
        self._rng = rng
        self._closing = threading.Event()
        self.written: list[str] = []

    def run(self) -> None:
        """Write a file of a few sales, in one of the ways of tills, every few milliseconds."""
        source = sales(1_000_000, SEED)
        number = 0
        while not self._closing.is_set():
            lines = [next(source) for _ in range(self._rng.randint(1, 9))]
            as_array = self._rng.random() < 0.5
            content = b"[" + b",\n".join(lines) + b"]" if as_array else b"".join(line + b"\n" for line in lines)
            name = f"{number:06d}.{'json' if as_array else 'jsonl'}"
            self._shop.drop(name, content, renamed=self._rng.random() < 0.5)
            self.written += [json.loads(line)["transaction_id"] for line in lines]
            number += 1
            self._closing.wait(0.05)

    def close(self) -> None:
        """Stop selling."""
        self._closing.set()
        self.join()


def test_an_agent_killed_a_hundred_times_neither_loses_nor_doubles_a_sale(
    server: Server, open_shop: Callable[..., Shop]
) -> None:
    """Bronze holds every transaction once, whatever moment each kill hit."""
    rng = random.Random(SEED)
    shop = open_shop("pi-05")
    feeder = Feeder(shop, random.Random(SEED + 1))
    pause = threading.Event()
    troubles = set(rng.sample(range(10, KILLS - 10), SERVER_TROUBLES))
    server_is_down = False
    kills_with_work = 0
    feeder.start()
    try:
        for kill in range(KILLS):
            if server_is_down and kill % 4 == 0:
                server.start()
                server_is_down = False
            if kill in troubles:
                server.kill() if rng.random() < 0.5 else stop([server.process])
                server_is_down = True
            shop.start()
            pause.wait(rng.uniform(*LIFE_S))
            shop.kill()
            kills_with_work += bool(shop.unsettled())
    finally:
        feeder.close()
    if server_is_down:
        server.start()
    shop.start()
    wait_until_drained(server, [shop], 120, lambda _open: None)

    transaction_ids, identities = server.row("transaction_ids")
    gaps, forks, _duplicates, quarantined, _lag_s = server.row("counts")

    assert kills_with_work > KILLS // 2
    assert len(feeder.written) > KILLS
    assert sorted(transaction_ids) == sorted(feeder.written)
    assert identities == len(feeder.written)
    assert (gaps, forks, quarantined) == (0, 0, 0)
