"""`scout-agent`: takes sales from a till, keeps them in a spool, and delivers them. Runs on each Pi."""

from datetime import UTC, datetime
from importlib.metadata import version

VERSION = version("scout-edge")

BUILT_ON = datetime(2026, 11, 23, tzinfo=UTC)
"""Set at each release. A clock that reads earlier is wrong, so no batch gets its date from it."""
