"""Where the local source may listen: on this machine alone."""

from wire.loopback import host_and_port, is_loopback_address

LOCALHOST = "127.0.0.1"


class NotLoopback(ValueError):
    """This is not an address of this machine alone."""


def listen_address(text: str) -> tuple[str, int]:
    """Read HOST:PORT into an address to bind; port 0 lets the system choose. Raises NotLoopback."""
    parts = host_and_port(text)
    if parts is None or parts.port is None:
        raise NotLoopback("must be HOST:PORT, such as 127.0.0.1:8710 or [::1]:8710")
    host = LOCALHOST if parts.hostname == "localhost" else parts.hostname or ""
    if not is_loopback_address(host):
        raise NotLoopback(
            "must be a loopback address, such as 127.0.0.1:8710: whoever reaches this listener may post sales in "
            "this device's name, so it must not be reachable from the network"
        )
    return host, parts.port
