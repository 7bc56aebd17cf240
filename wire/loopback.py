"""Which addresses and names are this machine's own.

May be relied on: what is accepted here can't be reached from another machine, nor be a name that somebody
else's DNS decides.
"""

import ipaddress
from urllib.parse import SplitResult, urlsplit


def is_loopback_host(host: str) -> bool:
    """Whether a Host header names this machine. A page whose own name was pointed at us names something else."""
    parts = host_and_port(host)
    return parts is not None and is_loopback_name(parts.hostname or "")


def is_loopback_name(host: str) -> bool:
    """Whether this is `localhost` or a loopback address, without port or brackets."""
    return host == "localhost" or is_loopback_address(host)


def is_loopback_address(host: str) -> bool:
    """Whether this is a loopback address, without port or brackets."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def host_and_port(text: str) -> SplitResult | None:
    """Divide HOST or HOST:PORT; None when there is anything more or the port is none."""
    try:
        parts = urlsplit(f"//{text}")
        has_more = parts.path or parts.query or parts.fragment or parts.username is not None
        return None if has_more or (parts.port is None and text.endswith(":")) else parts
    except ValueError:
        return None
