"""status.json: whole, world-readable, soon after each change, and no wear for the card."""

import os
import stat
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest
from fakes import FakeClock
from status_kit import DAEMON, FAULT, WELL

from agent.board import DaemonFacts
from agent.errors import SpoolForbidden
from agent.published import FACTS_S, LOOK_S, REFRESH_S, Publisher, as_of_now, published_for
from agent.verdict import Status


class House:
    """A publisher, and all that it looks at."""

    def __init__(self, folder: Path, *, in_memory: bool) -> None:
        self.clock = FakeClock()
        self.file, self.watched = folder / "status.json", folder / "spool.db"
        self.facts = DAEMON
        self.is_closed = False
        self.publisher = Publisher(
            self.file,
            self.look,
            lambda: self.facts,
            [self.watched],
            in_memory=in_memory,
            clock=self.clock,
        )

    def look(self) -> Status:
        """What `look` would see."""
        if self.is_closed:
            raise SpoolForbidden
        return replace(WELL, daemon=self.facts, seen_at=str(self.clock.now()))

    def note(self, **facts: Any) -> None:
        """Let the daemon note something."""
        self.facts = replace(self.facts, **facts)

    def step(self, after_s: float = 0.0) -> bool:
        """Let time pass and the publisher look; whether it wrote."""
        self.clock.pass_s(after_s)
        before = self.file.stat().st_ino if self.file.exists() else None
        wait_s = self.publisher.step()
        assert 0 < wait_s <= LOOK_S
        return (self.file.stat().st_ino if self.file.exists() else None) != before

    def published(self) -> dict[str, Any]:
        """What anybody reads."""
        fields: dict[str, Any] = orjson.loads(self.file.read_bytes())
        return fields


def test_in_memory_it_follows_each_change_and_tells_of_life(tmp_path: Path) -> None:
    """The daemon's own facts within a second, the spool's within five, a word of life each minute."""
    house = House(tmp_path, in_memory=True)
    assert house.step()
    house.note(last_fault=FAULT)
    assert not house.step()
    assert house.step(FACTS_S)
    assert house.published()["last_fault"]["message"] == FAULT.message
    house.watched.touch()
    assert not house.step(FACTS_S)
    assert house.step(LOOK_S)
    assert not house.step(LOOK_S)
    assert house.step(REFRESH_S)


def test_on_a_card_only_what_is_important_is_written(tmp_path: Path) -> None:
    """An idle device, and one that sells, write nothing; a fault and its end are written."""
    house = House(tmp_path, in_memory=False)
    assert house.step()
    for _ in range(50):
        house.watched.touch()
        assert not house.step(REFRESH_S)
    house.note(path="endpoint", clock_offset_s=1.0)
    assert not house.step(REFRESH_S)
    house.note(last_fault=FAULT)
    assert house.step(REFRESH_S)
    house.note(last_fault=replace(FAULT, at="2027-03-01T03:00:00.000Z", message="another try"))
    assert not house.step(REFRESH_S)
    house.note(last_fault=None)
    assert house.step(REFRESH_S)
    house.note(paused_until="2027-03-01T04:30:00.000Z")
    assert house.step(REFRESH_S)


def test_everybody_may_read_it_whatever_the_umask(tmp_path: Path) -> None:
    """Systemd units often run with 0077."""
    before = os.umask(0o077)
    try:
        assert House(tmp_path, in_memory=True).step()
    finally:
        os.umask(before)

    assert stat.S_IMODE((tmp_path / "status.json").stat().st_mode) == 0o644


def test_a_folder_that_is_gone_and_a_spool_that_is_closed_end_nothing(tmp_path: Path) -> None:
    """What only shows must not end what takes and delivers; it is written again as soon as that works."""
    folder = tmp_path / "run"
    house = House(folder, in_memory=True)
    assert not house.step()
    folder.mkdir()
    assert house.step(REFRESH_S)
    house.is_closed = True
    assert not house.step(REFRESH_S)
    house.is_closed = False
    assert house.step(REFRESH_S)


def test_it_is_read_back_as_it_was_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By another version of the agent too, whatever that added; another device's is not ours."""
    monkeypatch.setenv("RUNTIME_DIRECTORY", f"{tmp_path}:/run/other")
    assert published_for("pi-05") is None
    house = House(tmp_path, in_memory=True)
    house.note(last_fault=FAULT, source_faults=(("folder", "gone"),))
    house.step()
    newer = house.published() | {"mood": "good"}
    (tmp_path / "status.json").write_bytes(orjson.dumps(newer))

    assert published_for("pi-05") == house.look()
    assert published_for() == house.look()
    assert published_for("pi-06") is None
    (tmp_path / "status.json").write_text("{")
    assert published_for() is None


def test_a_dead_daemons_word_is_corrected() -> None:
    """The file may outlive who wrote it."""
    alive = replace(WELL, daemon=DaemonFacts(pid=os.getpid(), version="1.0", started_at=WELL.seen_at))
    dead = replace(WELL, daemon=DaemonFacts(pid=2**22 + 1, version="1.0", started_at=WELL.seen_at))

    assert as_of_now(alive) == alive
    assert as_of_now(dead).exit_status == 2
    assert [problem.code for problem in as_of_now(dead).broken] == ["not_running"]
