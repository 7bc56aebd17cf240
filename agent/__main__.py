"""`scout-agent`, the program: the resident daemon by the short way, every other command by the command line.

May be relied on: `scout-agent run [--config FILE]` does as agent/cli.py's `run` does, but stays without the
libraries of a command line, which would be a quarter of a resident daemon's memory.
"""

import sys
from pathlib import Path

CONFIG_OPTIONS = ("--config", "-c")
UNNEEDED = ("httpx._main", "rich", "cryptography")
"""What httpx, structlog and jwt load if they can, for a command of their own, tracebacks in colour, and keys."""


def main() -> None:
    """Run a command; print a problem as one sentence instead of a traceback."""
    match sys.argv[1:]:
        case ["run"]:
            _stay(None)
        case ["run", option, file] if option in CONFIG_OPTIONS:
            _stay(Path(file))
        case _:
            from agent.cli import main as command_line  # noqa: PLC0415  (what `run` does without)

            command_line()


def _stay(config: Path | None) -> None:
    # Python's own way to say: not installed.
    for name in UNNEEDED:
        sys.modules[name] = None  # type: ignore[assignment]
    from agent.daemon import main as daemon  # noqa: PLC0415  (after the line above)
    from agent.errors import ScoutAgentError  # noqa: PLC0415

    try:
        daemon(config)
    except ScoutAgentError as error:
        sys.exit(f"scout-agent: {error}")


if __name__ == "__main__":
    main()
