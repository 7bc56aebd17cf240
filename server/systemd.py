"""What systemd is told of this process, by the protocol of sd_notify(3).

May be relied on: without systemd (NOTIFY_SOCKET is absent) nothing is sent; telling never waits and never raises,
for a server must not fail by talking about itself.

The agent has a module of its own for this: neither program imports the other, and nothing of it crosses between them.
"""

import os
import socket
from collections.abc import Mapping

import structlog

log = structlog.get_logger()


class Manager:
    """The service manager that started this process, if one did."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        address = environment.get("NOTIFY_SOCKET", "")
        self._address = f"\0{address[1:]}" if address.startswith("@") else address
        self.watchdog_s = _watchdog_s(environment)
        """Seconds without WATCHDOG=1 after which this process is killed; None when nobody watches."""

    @property
    def listens(self) -> bool:
        """Whether anybody is there to be told."""
        return bool(self._address)

    def tell(self, *assignments: str) -> None:
        """Send assignments such as "READY=1" in one datagram."""
        if not self._address:
            return
        message = "\n".join(assignment.replace("\n", " ") for assignment in assignments)
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
                channel.setblocking(False)
                channel.sendto(message.encode(), self._address)
        except OSError as error:
            log.warning("systemd_not_told", error=error.strerror)


def _watchdog_s(environment: Mapping[str, str]) -> float | None:
    microseconds = environment.get("WATCHDOG_USEC", "")
    is_ours = environment.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
    return int(microseconds) / 1_000_000 if microseconds.isdecimal() and is_ours else None
