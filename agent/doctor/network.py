"""The way to the server, step by step: proxy, name, connection, certificate."""

import socket
import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from agent.clock import Clock
from agent.doctor.finding import Outcome, attention, broken, ok

CERTIFICATE_DUE_DAYS = 14
TIMEOUT_S = 10.0
_OF_TIME = (9, 10)  # OpenSSL: not valid yet, expired

Resolve = Callable[[str, int], Any]


@dataclass(frozen=True, slots=True)
class Hop:
    """Where connections go: the server itself, or the proxy before it."""

    host: str
    port: int
    is_tls: bool
    is_proxy: bool


def proxy_of(url: str, configured: str = "") -> str | None:
    """The proxy for an address, of the config or else the environment. It may hold a password: never show it."""
    if configured:
        return configured
    parts = urlsplit(url)
    if proxy_bypass(parts.hostname or ""):
        return None
    proxies = getproxies()
    return proxies.get(parts.scheme) or proxies.get("all")


def hops_of(urls: Sequence[str], proxy: Callable[[str], str | None] = proxy_of) -> tuple[Hop, ...]:
    """The places to which requests to these addresses connect, each once."""
    hops = []
    for url in urls:
        through = proxy(url)
        parts = urlsplit(url if through is None else through if "//" in through else f"//{through}")
        is_tls = parts.scheme == "https"
        hops.append(Hop(parts.hostname or "", parts.port or (443 if is_tls else 80), is_tls, through is not None))
    return tuple(dict.fromkeys(hops))


def check_proxy(hops: Sequence[Hop]) -> Outcome:
    """Which proxy is in force, without its password."""
    proxies = [f"{hop.host}:{hop.port}" for hop in hops if hop.is_proxy]
    return ok(f"through {', '.join(proxies)}" if proxies else "none")


def check_names(hops: Sequence[Hop], resolve: Resolve = socket.getaddrinfo) -> Outcome:
    """Whether the names can be found."""
    for hop in hops:
        try:
            resolve(hop.host, hop.port)
        except (OSError, UnicodeError) as error:
            return broken(
                f"{hop.host} can't be found ({error})",
                "is the network plugged in? resolvectl query example.com; check the addresses under [server]",
            )
    return ok(", ".join(dict.fromkeys(hop.host for hop in hops)))


def check_connections(hops: Sequence[Hop], timeout_s: float = TIMEOUT_S) -> Outcome:
    """Whether the ports answer."""
    for hop in hops:
        try:
            socket.create_connection((hop.host, hop.port), timeout_s).close()
        except OSError as error:
            return broken(
                f"{hop.host}:{hop.port} does not answer ({error})",
                "does any web page open here? If so, ask the back office whether the server runs",
            )
    return ok(", ".join(f"{hop.host}:{hop.port}" for hop in hops))


def check_certificates(
    hops: Sequence[Hop], trusted: ssl.SSLContext, clock: Clock, timeout_s: float = TIMEOUT_S
) -> Outcome:
    """Whether the certificates are to be trusted, and for how long still."""
    plain = [hop.host for hop in hops if not (hop.is_tls or hop.is_proxy or _is_loopback(hop.host))]
    if plain:
        return attention(f"sales travel unencrypted to {plain[0]}", "use https:// under [server] in the config")
    days_left = []
    for hop in hops:
        if not hop.is_tls:
            continue
        try:
            days_left.append(_days_left(hop, trusted, clock, timeout_s))
        except ssl.SSLCertVerificationError as error:
            is_of_time = error.verify_code in _OF_TIME
            return broken(
                f"{hop.host}: its certificate is not trusted ({error.verify_message})",
                "set this device's clock: timedatectl"
                if is_of_time and not clock.is_synced()
                else "tell the back office: somebody may stand between, or the server's certificate must be renewed",
            )
        except OSError as error:
            return broken(f"{hop.host}:{hop.port} speaks no TLS ({error})", "check the addresses under [server]")
    if not days_left:
        return ok("not used")
    if min(days_left) < CERTIFICATE_DUE_DAYS:
        return attention(f"the server's certificate has {min(days_left):.0f} days left", "tell the back office")
    return ok(f"trusted, {min(days_left):,.0f} days left")


def _days_left(hop: Hop, trusted: ssl.SSLContext, clock: Clock, timeout_s: float) -> float:
    with (
        socket.create_connection((hop.host, hop.port), timeout_s) as connection,
        trusted.wrap_socket(connection, server_hostname=hop.host) as secure,
    ):
        certificate = secure.getpeercert() or {}
    return (ssl.cert_time_to_seconds(str(certificate["notAfter"])) - clock.now().timestamp()) / 86_400


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False
