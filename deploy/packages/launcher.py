#!/usr/bin/python3 -IS
"""Starts @PROGRAM@ by Debian's own Python, with the libraries of /usr/lib/@PROGRAM@ and no others.

Without -I and -S, somebody's PYTHONPATH or `pip install` would decide what the program runs on.
"""

import importlib
import os
import sys

HOME = "/usr/lib/@PROGRAM@"
ENVIRONMENT_FILE = "@ENVIRONMENT_FILE@"


def read_environment():
    """Take what the service's environment file says and the environment doesn't, for who may read it."""
    try:
        with open(ENVIRONMENT_FILE, encoding="utf-8") as file:
            lines = [line.strip() for line in file]
    except OSError:
        return
    for line in lines:
        name, is_assignment, value = line.partition("=")
        if is_assignment and not line.startswith(("#", ";")):
            is_quoted = len(value) > 1 and value[0] == value[-1] and value[0] in "\"'"
            os.environ.setdefault(name.strip(), value[1:-1] if is_quoted else value.strip())


def main():
    """Run the program; where the package has nothing for this Python, say what to do."""
    natives = "%s/python%d.%d" % (HOME, *sys.version_info[:2])
    if not os.path.isdir(natives):
        held = ", ".join(sorted(name[6:] for name in os.listdir(HOME) if name.startswith("python")))
        sys.exit(
            "@PROGRAM@: /usr/bin/python3 is Python %d.%d, and this package is for Python %s. Install the @PROGRAM@ "
            "package of this Debian's release." % (*sys.version_info[:2], held)
        )
    sys.path += [natives, HOME + "/lib"]
    if ENVIRONMENT_FILE:
        read_environment()
    importlib.import_module("@MODULE@").main()


if __name__ == "__main__":
    main()
