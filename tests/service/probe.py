"""Tries what a service must be able to do, and what it must not; prints a JSON object of what worked."""

import ctypes
import json
import mmap
import os
import socket
from collections.abc import Callable
from pathlib import Path


def writes(folder: str) -> Callable[[], object]:
    """Write a file there."""
    return lambda: Path(folder, "scout-probe").write_text("x")


def opens(family: int, kind: int) -> Callable[[], object]:
    """Open a socket."""
    return lambda: socket.socket(family, kind).close()


def asks_whether_the_clock_is_synchronised() -> object:
    """As agent/clock.py does."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.adjtimex(ctypes.create_string_buffer(256)) < 0:
        raise OSError(ctypes.get_errno(), "adjtimex")
    return True


def sets_the_clock() -> object:
    """Nobody asked it to."""
    time_ns = 10**18
    return __import__("time").clock_settime_ns(0, time_ns)


TRIES: dict[str, Callable[[], object]] = {
    "write its state": writes(os.environ["STATE_DIRECTORY"]),
    "write its runtime directory": writes(os.environ["RUNTIME_DIRECTORY"]),
    "write /var/lib/till": writes("/var/lib/till"),
    "write /srv": writes("/srv"),
    "write /etc": writes("/etc"),
    "write /usr": writes("/usr"),
    "write /var/lib": writes("/var/lib"),
    "write /opt": writes("/opt"),
    "write its config": writes(os.environ["CONFIGURATION_DIRECTORY"]),
    "look into /root": lambda: list(Path("/root").iterdir()),
    "open a UNIX socket": opens(socket.AF_UNIX, socket.SOCK_DGRAM),
    "open an IPv4 socket": opens(socket.AF_INET, socket.SOCK_STREAM),
    "open an IPv6 socket": opens(socket.AF_INET6, socket.SOCK_STREAM),
    "open a netlink socket": opens(socket.AF_NETLINK, socket.SOCK_RAW),
    "open a packet socket": opens(socket.AF_PACKET, socket.SOCK_RAW),
    "map memory to write and execute": lambda: mmap.mmap(
        -1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC
    ).close(),
    "become root": lambda: os.setuid(0),
    "read the boot's id": lambda: Path("/proc/sys/kernel/random/boot_id").read_text(),
    "ask whether the clock is synchronised": asks_whether_the_clock_is_synchronised,
    "set the clock": sets_the_clock,
}


def main() -> None:
    """Try everything."""
    worked = {}
    for name, attempt in TRIES.items():
        try:
            attempt()
            worked[name] = True
        except OSError:
            worked[name] = False
    print(json.dumps(worked))


main()
