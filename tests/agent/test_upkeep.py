"""The upkeep thread: what a start had no time for, and trouble that must stay its own."""

import random
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from agent_kit import BUILT_ON, NOW, open_spool, sale, until, write_config
from fakes import FakeClock
from structlog.testing import capture_logs

from agent import config as configuration
from agent import damage
from agent.config import Config
from agent.errors import SpoolMalformed
from agent.space import Space, space_of
from agent.upkeep import Upkeep, begin

PAGE = 4096


@pytest.fixture
def config(tmp_path: Path) -> Config:
    """Return the config of a spool with 200 sales, nobody having it open."""
    config = configuration.load(write_config(tmp_path, "http://127.0.0.1:1"))
    spool = open_spool(config.spool_file, FakeClock())
    spool.append([sale(number, filling="x" * 500) for number in range(200)])
    spool.seal(NOW, BUILT_ON)
    spool.close()
    return config


class Watched:
    """An upkeep in a thread of its own, and what it said."""

    def __init__(self, config: Config, space: Space, *, checked: bool) -> None:
        self.failures: list[BaseException] = []
        self.stop = threading.Event()
        upkeep = Upkeep(
            config,
            checked=checked,
            clock=FakeClock(),
            rng=random.Random(1),
            space=space,
            failed=self.failures.append,
        )
        self._thread = threading.Thread(target=upkeep.run, args=(self.stop,))
        self._thread.start()

    def end(self) -> None:
        """Stop it, and wait."""
        self.stop.set()
        self._thread.join()


def zero_in_the_middle(file: Path) -> None:
    """Damage records, and nothing that opening the file would meet."""
    with file.open("r+b") as opened:
        opened.seek(file.stat().st_size // PAGE // 2 * PAGE)
        opened.write(bytes(2 * PAGE))


def test_damage_that_a_start_had_no_time_to_see_is_found_beside_intake(config: Config) -> None:
    """And handed to the daemon, which begins anew."""
    zero_in_the_middle(config.spool_file)
    spool = open_spool(config.spool_file, FakeClock())
    watched = Watched(config, space_of(config), checked=False)
    until(lambda: watched.failures, "it is found")
    assert spool.append([sale(1000)]) == 1
    watched.end()
    spool.close()

    assert isinstance(watched.failures[0], SpoolMalformed)


def test_a_sound_spool_gives_upkeep_nothing_to_do(config: Config) -> None:
    """It ends by itself."""
    watched = Watched(config, space_of(config), checked=False)
    watched._thread.join()

    assert watched.failures == []


def test_a_salvage_without_room_waits_and_ends_nothing(config: Config) -> None:
    """Intake and delivery go on; the damaged file stays until there is room."""
    zero_in_the_middle(config.spool_file)
    space = space_of(config)
    begin(config, clock=FakeClock(), rng=random.Random(1), space=space)
    limits = space.limits
    space.limits = replace(limits, disk_free_bytes_min=1 << 60)
    with capture_logs() as logs:
        watched = Watched(config, space, checked=True)
        until(lambda: any(entry["event"] == "upkeep_delayed" for entry in logs), "it is said")
        watched.end()
        space.limits = limits
        watched = Watched(config, space, checked=True)
        until(lambda: any(entry["event"] == "salvage_finished" for entry in logs), "it is done")
        watched.end()

    assert watched.failures == []
    assert len(damage.folders(config.spool_file)) == 1


def test_a_clock_that_runs_out_leaves_the_check_for_later(config: Config) -> None:
    """So that intake begins within seconds, however large the spool."""

    class Hurried(FakeClock):
        def monotonic_s(self) -> float:
            self.pass_s(damage.CHECK_WITHIN_S)
            return super().monotonic_s()

    assert begin(config, clock=FakeClock(), rng=random.Random(1), space=space_of(config))
    spool = open_spool(config.spool_file, FakeClock())
    spool.append([sale(number, filling="x" * 500) for number in range(2000)])
    spool.close()

    assert not begin(config, clock=Hurried(), rng=random.Random(1), space=space_of(config))
