"""The packages as they are built from this checkout, for tests."""

import subprocess
import sys
from functools import cache
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[1]


@cache
def built_package(program: str, architecture: str) -> Path:
    """Build the package of a program, once a session; return it."""
    builder = CHECKOUT / "deploy/packages/build.py"
    command = [sys.executable, str(builder), "--program", program, "--architecture", architecture]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return Path(done.stdout.split()[-1])
