"""Which addresses and names are this machine's own.

May be relied on: what is accepted here can't be reached from another machine, nor be a name that somebody
else's DNS decides.
"""

import ipaddress
from urllib.parse import SplitResult, urlsplit

LOCALHOST = "127.0.0.1"


class NotLoopback(ValueError):
    """This is not an address of this machine alone."""


def listen_address(text: str) -> tuple[str, int]:
    """Read HOST:PORT into an address to bind; port 0 lets the system choose. Raises NotLoopback."""
    parts = _parts(text)
    if parts is None or parts.port is None:
        raise NotLoopback("must be HOST:PORT, such as 127.0.0.1:8710 or [::1]:8710")
    host = LOCALHOST if parts.hostname == "localhost" else parts.hostname or ""
    if not _is_loopback_address(host):
        raise NotLoopback(
            "must be a loopback address, such as 127.0.0.1:8710: whoever reaches this listener may post sales in "
            "this device's name, so it must not be reachable from the network"
        )
    return host, parts.port


def is_loopback_host(host: str) -> bool:
    """Whether a Host header names this machine. A page whose own name was pointed at us names something else."""
    parts = _parts(host)
    return parts is not None and (parts.hostname == "localhost" or _is_loopback_address(parts.hostname or ""))


def _parts(text: str) -> SplitResult | None:
    """Divide HOST or HOST:PORT; None when there is anything more or the port is none."""
    try:
        parts = urlsplit(f"//{text}")
        has_more = parts.path or parts.query or parts.fragment or parts.username is not None
        return None if has_more or (parts.port is None and text.endswith(":")) else parts
    except ValueError:
        return None


def _is_loopback_address(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
