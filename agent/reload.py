"""The config in force, and how another one takes its place without a restart.

May be relied on
- A config is in force whole or not at all: one that can't be read, is out of range, or changes what can't be
  changed while running is refused with file and key, and the one before it stays.
- The file is looked at when a loop looks; SIGHUP and a notification only make that sooner.
- A part of the daemon is built anew from a new config between two of its steps, never within one.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Generic, Protocol, TypeVar

import structlog

from agent import config as configuration
from agent.board import Board
from agent.config import Config
from agent.errors import LocalFault, Misconfigured
from agent.files import signature_of
from agent.transport import client_of

log = structlog.get_logger()


class Part(Protocol):
    """What is built from a config and does the work of a loop."""

    def step(self) -> float:
        """Do what is due; return in how many seconds to come back."""

    def close(self) -> None:
        """Let go of files and sockets."""


AnyPart = TypeVar("AnyPart", bound=Part)


class LiveConfig:
    """A config file and what was last good in it."""

    def __init__(self, file: Path, config: Config, board: Board, changed: Callable[[], None]) -> None:
        self.current = config
        self._file = file
        self._board = board
        self._changed = changed
        self._signature = signature_of(file)
        self._is_asked = False
        self._is_refused_by_part = False

    def ask(self) -> None:
        """Have the file read at the next look, whether it seems to have changed or not."""
        self._is_asked = True

    def look(self) -> Config:
        """The config in force, read anew if the file changed."""
        signature = signature_of(self._file)
        if signature != self._signature or self._is_asked:
            self._signature, self._is_asked = signature, False
            self._read()
        return self.current

    def refuse(self, fault: Misconfigured | LocalFault) -> None:
        """Nothing can be built from the config in force: say why. When the file is read again, all parts try again."""
        self._is_refused_by_part = True
        self._say(fault)

    def _say(self, fault: Misconfigured | LocalFault) -> None:
        log.error("config_refused", file=str(self._file), reason=str(fault))
        self._board.note(config_refused=str(fault))

    def _read(self) -> None:
        try:
            config = configuration.load(self._file)
            _refuse_restarts(self._file, self.current, config)
            client_of(config).close()
        except Misconfigured as fault:
            self._say(fault)
            return
        self._board.note(config_refused=None)
        if config != self.current or self._is_refused_by_part:
            self._is_refused_by_part = False
            self.current = config
            log.info("config_reloaded", file=str(self._file))
            self._changed()


class Renewed(Generic[AnyPart]):
    """A part that follows the config. Where a new one can't be built, the last good one is built again."""

    def __init__(self, live: LiveConfig, look: Callable[[], Config], build: Callable[[Config], AnyPart]) -> None:
        self._live = live
        self._look = look
        self._build = build
        self._config = self._wanted = live.current
        self._part: AnyPart | None = build(live.current)

    def step(self) -> float:
        """Follow the config, then do what is due. Raises LocalFault; the next step tries again."""
        wanted = self._look()
        if wanted is not self._wanted:
            self._wanted = wanted
            self._replace(wanted)
        if self._part is None:
            self._part = self._build_again()
        return self._part.step()

    def close(self) -> None:
        """Close the part."""
        if self._part is not None:
            self._part.close()
            self._part = None

    def _build_again(self) -> AnyPart:
        """Go back to the last good config. Raises LocalFault: what it names may be gone meanwhile, but not for good."""
        try:
            return self._build(self._config)
        except Misconfigured as fault:
            raise LocalFault(str(fault)) from fault

    def _replace(self, config: Config) -> None:
        self.close()  # first: both may need the same port or folder
        try:
            self._part = self._build(config)
        except (Misconfigured, LocalFault) as fault:
            self._live.refuse(fault)
        else:
            self._config = config


def _refuse_restarts(file: Path, before: Config, after: Config) -> None:
    """Refuse what would make another device or another spool of a running agent."""
    for key, old, new in (
        ("device.id", before.device.id, after.device.id),
        ("spool.directory", before.spool.directory, after.spool.directory),
    ):
        if old != new:
            raise Misconfigured(
                f"{file}: {key}: can't change from {old} to {new} while the agent runs: restart it "
                "(systemctl restart scout-agent)"
            )
