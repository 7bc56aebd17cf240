"""Tells a newcomer what is missing before `make` starts to install. May rely on nothing but an interpreter."""

import sys


def main():
    """Exit 1 with the name of the package to install when this Python can't make a virtual environment."""
    version = "%d.%d" % sys.version_info[:2]
    if sys.version_info < (3, 11):
        sys.exit(
            "scout-edge needs Python 3.11 or newer; %s is %s. Set PYTHON, for example: make PYTHON=python3.11"
            % (sys.executable, version)
        )
    try:
        import ensurepip  # noqa: F401, PLC0415
        import venv  # noqa: F401, PLC0415
    except ImportError:
        sys.exit(
            "This Python has no venv module. On Debian or Ubuntu: sudo apt install python%s-venv "
            "(or python3-venv)" % version
        )


if __name__ == "__main__":
    main()
