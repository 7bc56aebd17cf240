"""What the server says to harmless questions: each is asked with this device's token and must be refused.

May be relied on: nothing is stored. Each question breaks a rule that is looked at after the token and before
anything is kept; so being refused for just that says that the right service answered and took the token.
A captive portal's page, a wrong address or a refused token answer otherwise.
"""

from email.utils import parsedate_to_datetime
from urllib.parse import urlsplit

import httpx

from agent.clock import Clock
from agent.config import Config
from agent.doctor.finding import Outcome, attention, broken, ok
from agent.errors import BatchRefused, CredentialsRefused, Wait
from agent.identity import ask_nonce
from agent.upload import Connection, fault_of, send
from agent.verdict import CLOCK_WRONG_S

OFFSET_NOTED_S = 60.0
_PORTAL = "open any web page on this network and log in there; else check the addresses under [server]"


def ask_heartbeat(connection: Connection) -> httpx.Response:
    """A report whose epochs are no list: refused as a whole, and nothing of it is kept. Raises DeliveryFault."""
    return send(connection, connection.heartbeat_url, content=b'{"nonce":"doctor","epochs":0}', headers=_JSON)


def ask_bucket(connection: Connection, device: str) -> httpx.Response:
    """An object without a byte under a name that no policy of ours allows. Raises DeliveryFault."""
    url = f"{connection.bucket_url.rstrip('/')}/2000-01-01/{device}/doctor"
    return send(connection, url, content=b"", headers={"Content-Type": "application/octet-stream"})


def ask_endpoint(connection: Connection) -> httpx.Response:
    """A sale that is no JSON. Raises DeliveryFault."""
    return send(connection, connection.ingest_url, content=b"{", headers=_JSON)


def check_renewal(config: Config, client: httpx.Client, clock: Clock, *, enrolled: bool) -> Outcome:
    """Whether the place answers from which the next token comes. Raises DeliveryFault."""
    if not enrolled:
        return ok("not used: this device is not enrolled")
    ask_nonce(config, client, clock)
    return ok(f"{config.token_url} gives the next token")


def check_server(response: httpx.Response) -> Outcome:
    """Whether it was our server that answered, and not this network's login page."""
    url = str(response.request.url)
    elsewhere = urlsplit(response.headers.get("Location", "")).hostname
    if response.is_redirect:
        return broken(f"{url} leads to {elsewhere}: a login page stands before the internet", _PORTAL)
    if not _is_json(response) and response.status_code < 500:
        return broken(f"{url} answered {response.status_code} with a page that is not our server's", _PORTAL)
    if response.is_success:
        return broken(f"{url} answered {response.status_code} to what our server refuses", _PORTAL)
    return ok(f"answers at {url}")


def check_accepted(response: httpx.Response, what: str) -> Outcome:
    """Whether the service took the token: then it refused only what we broke on purpose."""
    url = str(response.request.url)
    if response.is_success or response.is_redirect:
        return broken(f"{url} answered {response.status_code} to what {what} refuses", _PORTAL)
    fault = fault_of(response, url)
    if isinstance(fault, BatchRefused):
        return ok(f"{what} takes this device's token")
    if isinstance(fault, CredentialsRefused):
        return broken(f"the token is refused: {fault}", fault.next_step)
    if isinstance(fault, Wait):
        return attention(f"{what} is busy or down: {fault}", "if it stays so, tell the back office")
    return broken(str(fault), fault.next_step)


def check_offset(response: httpx.Response, clock: Clock) -> Outcome:
    """How far this device's clock is from the server's."""
    try:
        offset_s = (parsedate_to_datetime(response.headers["Date"]) - clock.now()).total_seconds()
    except (KeyError, ValueError, TypeError):
        return attention("the server gave no time", "nothing")
    message = f"this device's clock is {abs(offset_s):,.0f} s {'behind' if offset_s > 0 else 'ahead'}"
    if abs(offset_s) > CLOCK_WRONG_S:
        return broken(message, "sudo timedatectl set-ntp true; allow NTP in this shop's network")
    if abs(offset_s) > OFFSET_NOTED_S:
        return attention(message, "sudo timedatectl set-ntp true")
    return ok("within a minute of the server's")


_JSON = {"Content-Type": "application/json"}


def _is_json(response: httpx.Response) -> bool:
    return response.content[:1] == b"{"
