"""The tail source and power cuts, on a file system that really forgets what wasn't flushed."""

import os
import random
import sqlite3
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from agent_kit import open_spool
from disks import Card
from fakes import FakeClock
from tail_kit import a_tail, append, catch_up, copy_and_truncate, lines, settle, stored

from agent.sources import roll, tail

CUTS = 12


@pytest.fixture
def card(tmp_path: Path) -> Iterator[Card]:
    """Give a card on which both till and agent write."""
    card = Card(tmp_path / "image", tmp_path / "card")
    yield card
    card.unmount()


def _lives(card: Card, clock: FakeClock) -> tuple[set[int], list[int], set[int]]:
    """Let a till sell and rotate over some cuts; return what was acknowledged, what is stored, what files hold."""
    rng, made, acknowledged = random.Random(1), 0, set[int]()
    folder = card.place / "till"
    folder.mkdir()
    for life in range(CUTS):
        spool = open_spool(card.place / "spool.db", clock, seed=life)
        source = a_tail(folder, spool, clock)
        for round_number in range(rng.randrange(1, 4)):
            count = rng.randrange(1, 40)
            append(folder / "sales.jsonl", lines(*range(made, made + count)))
            made += count
            catch_up(source, clock)
            if rng.random() < 0.5:
                os.sync()  # as the kernel does by itself every half minute: part of a file is on the card then
            if rng.random() < 0.4:
                rotated = folder / f"sales-{life}-{round_number}.jsonl"
                if rng.random() < 0.5:
                    (folder / "sales.jsonl").rename(rotated)
                else:
                    copy_and_truncate(folder / "sales.jsonl", rotated)
        acknowledged |= set(stored(spool))
        append(folder / "sales.jsonl", lines(*range(made, made + 5)))
        made += 5
        card.cut()
        source.close()
        with suppress(sqlite3.Error):
            spool.close()
        card.unmount()
        card.mount()
        clock.reboot(f"boot-{life + 2}")
    spool = open_spool(card.place / "spool.db", clock, seed=CUTS)
    source = a_tail(folder, spool, clock)
    settle(source, clock)
    source.close()
    taken = stored(spool)
    spool.close()
    held = b"".join(path.read_bytes() for path in folder.iterdir())
    return acknowledged, taken, {number for number in range(made) if b'"t-%d"' % number in held}


@pytest.mark.root
def test_power_cuts_neither_lose_nor_double_what_a_till_appended(card: Card, clock: FakeClock) -> None:
    """All that was acknowledged is there, all that the card still holds was taken, and each once."""
    acknowledged, taken, held = _lives(card, clock)

    assert len(acknowledged) > 200
    assert acknowledged <= set(taken)
    assert held <= set(taken)
    assert len(taken) == len(set(taken))


@pytest.mark.root
def test_without_the_sync_before_the_mark_cuts_double_sales(
    card: Card, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control: a harness that didn't see this would see nothing."""
    monkeypatch.setattr(tail, "sync_file", lambda _descriptor: None)
    monkeypatch.setattr(roll, "sync_file", lambda _descriptor: None)
    _, taken, _ = _lives(card, clock)

    assert len(taken) > len(set(taken))
