"""Whether a till's posts find their way into this device's spool.

May be relied on: nothing is stored. The question takes the way of all posts, to the spool and back, without a sale.
"""

import ssl
from collections.abc import Iterator
from pathlib import Path

import httpx

from agent.doctor.finding import Outcome, broken, ok
from agent.sources.local_http.door import HEALTHY

TIMEOUT_S = 15.0
"""Longer than the agent itself waits for its spool."""

_NO_CERTIFICATES = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # it stays on this device, without TLS


def check_local_http(listen: str, unix_socket: str, timeout_s: float = TIMEOUT_S) -> Outcome:
    """Whether sales can be posted where the config says. "" means that this way is not used."""
    for place, response in _answers(listen, unix_socket, timeout_s):
        if isinstance(response, str):
            return broken(f"{place} does not answer ({response})", "scout-agent status")
        if response.is_server_error:
            return broken(f"{place} can take no sale now (status {response.status_code})", "scout-agent status")
        if response.content != HEALTHY:
            return broken(f"another program answers at {place}", f"find it: sudo ss -lntxp | grep {place}")
    places = [place for place in (listen, unix_socket) if place]
    return ok(f"sales can be posted to {' and '.join(places)}" if places else "not used")


def _answers(listen: str, unix_socket: str, timeout_s: float) -> Iterator[tuple[str, httpx.Response | str]]:
    """What each place says, or why it says nothing."""
    ways = ((listen, None, f"http://{listen}"), (unix_socket, unix_socket, "http://localhost"))
    for place, uds, base_url in ways:
        if not place:
            continue
        if uds and not Path(uds).is_socket():
            yield place, "no socket is there"
            continue
        try:
            with httpx.Client(
                transport=httpx.HTTPTransport(uds=uds, verify=_NO_CERTIFICATES), base_url=base_url, timeout=timeout_s
            ) as client:
                yield place, client.get("/healthz")
        except httpx.TransportError as error:
            yield place, str(error) or type(error).__name__
