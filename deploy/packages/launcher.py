#!/usr/bin/python3 -BIS
"""Starts @PROGRAM@ by Debian's own Python, with the libraries of /usr/lib/@PROGRAM@ and no others.

Without -I and -S, somebody's PYTHONPATH or `pip install` would decide what the program runs on. -B: byte code is the
package's to make, so that it is the package's to remove.
"""

import importlib
import os
import sys
from pathlib import Path

HOME = Path("/usr/lib/@PROGRAM@")
ENVIRONMENT_FILE = "@ENVIRONMENT_FILE@"


def read_environment() -> None:
    """Take what the service's environment file says and the environment doesn't, for who may read it."""
    try:
        lines = Path(ENVIRONMENT_FILE).read_text(encoding="utf-8").splitlines()
    except OSError:
        return
    for line in lines:
        name, is_assignment, value = line.strip().partition("=")
        if is_assignment and not name.startswith(("#", ";")):
            is_quoted = len(value) > 1 and value[0] == value[-1] and value[0] in "\"'"
            os.environ.setdefault(name.strip(), value[1:-1] if is_quoted else value.strip())


def main() -> None:
    """Run the program; where the package has nothing for this Python, say what to do."""
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    natives = HOME / f"python{version}"
    if not natives.is_dir():
        held = ", ".join(sorted(folder.name.removeprefix("python") for folder in HOME.glob("python*")))
        sys.exit(
            f"@PROGRAM@: /usr/bin/python3 is Python {version}, and this package is for Python {held}. Install the "
            "@PROGRAM@ package that is made for this release of Debian."
        )
    sys.path += [str(natives), str(HOME / "lib")]
    if ENVIRONMENT_FILE:
        read_environment()
    importlib.import_module("@MODULE@").main()


if __name__ == "__main__":
    main()
