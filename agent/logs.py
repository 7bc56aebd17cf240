"""Logs as events with fields: JSON for journald, readable lines on a terminal. Never a payload or a token.

May be relied on: where stderr is the journal, every line begins with its syslog priority (sd-daemon(3)), so that
`journalctl -p warning` shows what a person should look at.
"""

import os
from collections.abc import Mapping
from typing import TextIO

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

PRIORITIES = {"debug": 7, "info": 6, "warning": 4, "error": 3, "critical": 2}


def set_up_logs(stream: TextIO, environment: Mapping[str, str] = os.environ) -> None:
    """Send every event to `stream`."""
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            *_renderers(stream, environment),
        ],
        logger_factory=structlog.WriteLoggerFactory(stream),
        cache_logger_on_first_use=True,
    )


def _renderers(stream: TextIO, environment: Mapping[str, str]) -> list[Processor]:
    if stream.isatty():
        return [structlog.dev.ConsoleRenderer()]
    if is_journal(stream, environment):
        return [_render_for_journal]
    return [structlog.processors.JSONRenderer()]


def is_journal(stream: TextIO, environment: Mapping[str, str]) -> bool:
    """Whether systemd connected this very stream to the journal, as it says in JOURNAL_STREAM."""
    status = os.fstat(stream.fileno())
    return environment.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


_render_json = structlog.processors.JSONRenderer()


def _render_for_journal(logger: WrappedLogger, name: str, event: EventDict) -> str:
    priority = PRIORITIES[str(event["level"])]
    return f"<{priority}>{_render_json(logger, name, event)!s}"
