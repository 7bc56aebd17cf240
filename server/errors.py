"""The server's errors, sorted by what the caller should do.

ServerError
├── Misconfigured        a person must change something: say so and exit
├── DataDirectoryHeld    another process owns the data directory: leave it alone
└── PostgresUnavailable  PostgreSQL does not answer: wait and try again
"""

import inspect


class ServerError(Exception):
    """The server cannot do what was asked of it."""

    def __init__(self, message: str | None = None) -> None:
        # An error raised without words still says what it means.
        super().__init__(message or inspect.cleandoc(type(self).__doc__ or type(self).__name__))


class Misconfigured(ServerError):
    """The server was started with settings it cannot work with."""


class DataDirectoryHeld(ServerError):
    """Another process works in this data directory."""


class PostgresUnavailable(ServerError):
    """PostgreSQL is not running or does not answer."""
