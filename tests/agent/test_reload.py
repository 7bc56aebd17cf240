"""Another config without a restart: whole or not at all, between two steps."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from agent_kit import write_config
from structlog.testing import capture_logs

from agent import config as configuration
from agent.board import Board, DaemonFacts
from agent.config import Config
from agent.errors import LocalFault, Misconfigured
from agent.reload import LiveConfig, Renewed

URL = "http://127.0.0.1:9"


class FakePart:
    """Remembers what was done to it."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.steps = 0
        self.is_closed = False

    def step(self) -> float:
        """Count."""
        assert not self.is_closed
        self.steps += 1
        return 1.0

    def close(self) -> None:
        """Remember."""
        self.is_closed = True


@pytest.fixture
def board() -> Board:
    """Return a board that nobody reads."""
    return Board(DaemonFacts(pid=1, version="test", started_at=""))


@pytest.fixture
def live(tmp_path: Path, board: Board) -> LiveConfig:
    """Return a config in force, with its file."""
    file = write_config(tmp_path, URL)
    return LiveConfig(file, configuration.load(file), board, changed=lambda: None)


def change(tmp_path: Path, **sections: dict[str, Any]) -> None:
    """Replace the file as an editor does."""
    write_config(tmp_path, URL, **sections)


def following(live: LiveConfig, build: Callable[[Config], FakePart] = FakePart) -> Renewed[FakePart]:
    """Return a part that follows the config."""
    return Renewed(live, live.look, build)


def test_a_changed_file_is_in_force_at_the_next_look(tmp_path: Path, live: LiveConfig) -> None:
    """And nothing is read while it stays."""
    before = live.look()
    assert live.look() is before
    change(tmp_path, upload={"mode": "endpoint"})

    assert live.look().upload.mode == "endpoint"
    assert live.look() is live.look()


def test_a_file_that_was_only_touched_changes_nothing(tmp_path: Path, live: LiveConfig) -> None:
    """Nobody's connections are cut for a comment."""
    before = live.look()
    (tmp_path / "config.toml").write_text((tmp_path / "config.toml").read_text() + "\n# a comment\n")

    assert live.look() is before


@pytest.mark.parametrize(
    ("sections", "says"),
    [
        ({"upload": {"mode": "ftp"}}, "upload.mode"),
        ({"upload": {"ca_file": "/nowhere/ca.pem"}}, "upload.ca_file"),
        ({"upload": {"quiet_hours": "late"}}, "upload.quiet_hours"),
        ({"device": {"id": "pi-06"}}, "device.id: can't change from pi-05 to pi-06 while the agent runs: restart"),
        ({"spool": {"directory": "/elsewhere"}}, "spool.directory: can't change"),
    ],
)
def test_a_config_that_is_not_good_is_refused_whole_and_shown(
    tmp_path: Path, live: LiveConfig, board: Board, sections: dict[str, dict[str, Any]], says: str
) -> None:
    """The one before it stays in force; once the file is good again, so is the status."""
    before = live.look()
    change(tmp_path, heartbeat={"interval_s": 5.0}, **sections)
    with capture_logs() as logs:
        assert live.look() is before
        assert live.look() is before
    assert [log["event"] for log in logs] == ["config_refused"]
    assert says in (board.facts.config_refused or "")
    assert "config.toml" in logs[0]["file"]

    change(tmp_path, heartbeat={"interval_s": 5.0})
    assert live.look().heartbeat.interval_s == 5.0
    assert board.facts.config_refused is None


def test_a_file_that_is_gone_is_refused_and_taken_when_it_is_back(tmp_path: Path, live: LiveConfig) -> None:
    """An editor may remove it before it writes the new one."""
    before = live.look()
    (tmp_path / "config.toml").unlink()
    assert live.look() is before
    change(tmp_path, batch={"rows_max": 7})

    assert live.look().batch.rows_max == 7


def test_a_hangup_has_the_file_read_though_it_seems_the_same(tmp_path: Path, live: LiveConfig, board: Board) -> None:
    """What it refers to may have been mended."""
    authority = tmp_path / "ca.pem"
    change(tmp_path, upload={"ca_file": str(authority)})
    live.look()
    assert board.facts.config_refused is not None
    authority.write_bytes(Path(__import__("certifi").where()).read_bytes())
    live.look()
    assert board.facts.config_refused is not None
    live.ask()

    assert live.look().upload.ca_file == str(authority)


def test_a_part_is_built_anew_between_two_steps_and_the_old_one_closed(tmp_path: Path, live: LiveConfig) -> None:
    """Never within one, and only for a change."""
    built: list[FakePart] = []

    def build(config: Config) -> FakePart:
        assert all(part.is_closed for part in built)
        built.append(FakePart(config))
        return built[-1]

    part = following(live, build)
    part.step()
    part.step()
    change(tmp_path, batch={"rows_max": 7})
    part.step()

    assert [(one.steps, one.is_closed, one.config.batch.rows_max) for one in built] == [(2, True, 2000), (1, False, 7)]


def test_a_part_that_cannot_be_built_anew_goes_on_as_before(tmp_path: Path, live: LiveConfig, board: Board) -> None:
    """With the reason shown, and without trying again at every step."""
    tries: list[int] = []

    def build(config: Config) -> FakePart:
        tries.append(config.batch.rows_max)
        if config.batch.rows_max == 7:
            raise LocalFault("folder.path: no such place")
        return FakePart(config)

    part = following(live, build)
    change(tmp_path, batch={"rows_max": 7})
    for _ in range(3):
        part.step()
    assert tries == [2000, 7, 2000]
    assert board.facts.config_refused == "folder.path: no such place"

    change(tmp_path, batch={"rows_max": 8})
    part.step()
    assert tries == [2000, 7, 2000, 8]
    assert board.facts.config_refused is None


@pytest.mark.parametrize("fault", [LocalFault("the disk is full"), Misconfigured("upload.ca_file: the disk is full")])
def test_a_part_that_cannot_be_built_at_all_is_tried_again_at_the_next_step(
    tmp_path: Path, live: LiveConfig, fault: LocalFault | Misconfigured
) -> None:
    """A card that is full for a minute, or an authority that is gone, must not end the daemon."""
    is_full = [False]

    def build(config: Config) -> FakePart:
        if is_full[0]:
            raise fault
        return FakePart(config)

    part = following(live, build)
    change(tmp_path, batch={"rows_max": 7})
    is_full[0] = True
    for _ in range(2):
        with pytest.raises(LocalFault, match="full"):
            part.step()
    is_full[0] = False

    assert part.step() == 1.0


def test_a_hangup_has_a_part_try_again_what_could_not_be_built(tmp_path: Path, live: LiveConfig, board: Board) -> None:
    """Else the refusal would be gone from the status, and the older config still at work."""
    is_mended = [False]

    def build(config: Config) -> FakePart:
        if config.batch.rows_max == 7 and not is_mended[0]:
            raise LocalFault("folder.path: no such place")
        return FakePart(config)

    part = following(live, build)
    change(tmp_path, batch={"rows_max": 7})
    part.step()
    live.ask()
    part.step()
    assert board.facts.config_refused == "folder.path: no such place"
    is_mended[0] = True
    live.ask()
    part.step()

    assert board.facts.config_refused is None
    assert part._part is not None
    assert part._part.config.batch.rows_max == 7
