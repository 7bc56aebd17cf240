"""scout-agent as it is, but for what a power-cut run has to change. Only tests start it.

- SCOUT_TEST_BOOT_ID names a file in the kernel's stead: a cut is a boot for a shop's machine and none for this one.
- SCOUT_TEST_SYNCHRONOUS weakens the spool, to prove that such a run sees the loss.
"""

import os
import sqlite3
from collections.abc import Callable
from pathlib import Path

from agent import __main__, clock, schema

Prepare = Callable[[sqlite3.Connection, Path], None]


def take_over() -> None:
    """Change what this process's environment names."""
    if "SCOUT_TEST_BOOT_ID" in os.environ:
        clock._BOOT_ID = Path(os.environ["SCOUT_TEST_BOOT_ID"])
    if "SCOUT_TEST_SYNCHRONOUS" in os.environ:
        schema._prepare = _weakened(schema._prepare, os.environ["SCOUT_TEST_SYNCHRONOUS"])


def _weakened(prepare: Prepare, synchronous: str) -> Prepare:
    def weakened(connection: sqlite3.Connection, path: Path) -> None:
        prepare(connection, path)
        connection.execute(f"pragma synchronous = {synchronous}")

    return weakened


if __name__ == "__main__":
    take_over()
    __main__.main()
