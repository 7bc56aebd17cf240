"""Logs as events with fields: JSON for journald, readable lines on a terminal. Never a payload or a token."""

from typing import TextIO

import structlog


def set_up_logs(stream: TextIO) -> None:
    """Send every event to `stream`."""
    renderer: structlog.typing.Processor = (
        structlog.dev.ConsoleRenderer() if stream.isatty() else structlog.processors.JSONRenderer()
    )
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            renderer,
        ],
        logger_factory=structlog.WriteLoggerFactory(stream),
        cache_logger_on_first_use=True,
    )
