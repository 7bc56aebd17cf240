"""How bytes travel: the HTTP client that the config asks for, bodies at a pace, answers of a bounded size.

May be relied on
- A body always goes with its Content-Length: storage servers take a chunked one past their own limits.
- `moved` hears of every piece sent or received, so that a slow transfer can be told from a stalled one.
- An answer beyond ANSWER_BYTES_MAX or ANSWER_WITHIN_S is cut off; no redirect is followed.
- Network trouble becomes a DeliveryFault here and nowhere else. None names a token, or a proxy's password.
"""

import ssl
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import httpx

from agent import BUILT_ON, VERSION
from agent.clock import Clock, SystemClock
from agent.config import Config
from agent.errors import ClockWrong, DeliveryFault, Misconfigured, OperatorNeeded, Wait

ANSWER_BYTES_MAX = 1024 * 1024
"""The longest true answer, a heartbeat's about 500 batches, is below 100 KB. A portal may stream for ever."""

ANSWER_WITHIN_S = 300.0
"""Time for a whole answer, however steadily it trickles."""

PIECE_BYTES = 16 * 1024
PIECES_PER_S = 4  # of a slowed body, so that it flows instead of coming in bursts
BYTES_PER_S_OF_KBIT = 125

_OF_TIME = {9: "is not valid yet", 10: "has expired"}  # OpenSSL's numbers for what a certificate lacks


@dataclass(frozen=True, slots=True)
class Flow:
    """How fast a body may go, and who hears that it does."""

    rate_kbit_max: int = 0  # 0: as fast as it can
    moved: Callable[[int], None] = lambda _bytes: None
    clock: Clock = field(default_factory=SystemClock)


def client_of(config: Config) -> httpx.Client:
    """The client for this config. Raises Misconfigured, naming the key, when it can't be made."""
    upload = config.upload
    trusted = trusted_by(config)
    try:
        return httpx.Client(
            verify=trusted,
            proxy=_proxy(upload.proxy, trusted),
            timeout=httpx.Timeout(upload.stall_timeout_s, connect=upload.connect_timeout_s),
            headers={"User-Agent": f"scout-agent/{VERSION}"},
            follow_redirects=False,
        )
    except (httpx.InvalidURL, ValueError, ImportError):
        # Without the address: it may hold a password.
        raise Misconfigured(
            "upload.proxy, or HTTP_PROXY, HTTPS_PROXY or ALL_PROXY in the environment where that is empty, must be "
            "an address such as http://proxy.example.com:3128"
        ) from None


def post(client: httpx.Client, url: str, content: bytes, headers: dict[str, str], flow: Flow) -> httpx.Response:
    """POST once and read the answer, whatever its status. Raises DeliveryFault when there is none."""
    headers = headers | {"Content-Length": str(len(content)), "Accept-Encoding": "identity"}
    try:
        with client.stream("POST", url, content=_pieces(content, flow), headers=headers) as response:
            return _whole(response, flow)
    except httpx.RequestError as error:
        raise _fault_of(error, url, client, flow.clock) from None
    except httpx.InvalidURL as error:
        raise OperatorNeeded(f"{url} is not an address: {error}") from None


def host_of(url: str) -> str:
    """Host and port, for messages."""
    return httpx.URL(url).netloc.decode("ascii", "replace")


def trusted_by(config: Config) -> ssl.SSLContext:
    """The system's authorities and, where given, one's own. Raises Misconfigured, naming the key."""
    ca_file = config.upload.ca_file
    paths = ssl.get_default_verify_paths()
    context = ssl.create_default_context() if paths.cafile or paths.capath else httpx.create_ssl_context()
    if ca_file:
        try:
            context.load_verify_locations(ca_file)
        except OSError as error:
            raise Misconfigured(
                f"upload.ca_file: {ca_file}: {error.strerror or error}. It must hold certificates in PEM form, "
                "readable by the agent's user."
            ) from None
    return context


def _proxy(address: str, trusted: ssl.SSLContext) -> httpx.Proxy | None:
    """The proxy of the config; None leaves it to the environment's variables."""
    if not address:
        return None
    return httpx.Proxy(address, ssl_context=trusted if address.startswith("https:") else None)


def _pieces(content: bytes, flow: Flow) -> Iterator[bytes]:
    """A body piece by piece, none before the rate allows it."""
    bytes_per_s = flow.rate_kbit_max * BYTES_PER_S_OF_KBIT
    size = max(1, min(PIECE_BYTES, bytes_per_s // PIECES_PER_S)) if bytes_per_s else PIECE_BYTES
    begun_s = flow.clock.monotonic_s()
    for start in range(0, len(content), size):
        if bytes_per_s:
            flow.clock.sleep(begun_s + start / bytes_per_s - flow.clock.monotonic_s())
        piece = content[start : start + size]
        yield piece
        flow.moved(len(piece))


def _whole(response: httpx.Response, flow: Flow) -> httpx.Response:
    """The answer as it came, once all of it is here."""
    if response.headers.get("Content-Encoding", "identity") != "identity":
        raise httpx.DecodingError("the answer is packed, which nobody asked for")
    deadline_s = flow.clock.monotonic_s() + ANSWER_WITHIN_S
    content = bytearray()
    for piece in response.iter_raw():
        flow.moved(len(piece))
        content += piece
        if len(content) > ANSWER_BYTES_MAX:
            raise OperatorNeeded(
                f"{host_of(str(response.url))} answered {response.status_code} with more than "
                f"{ANSWER_BYTES_MAX // 1024} KiB: this is not the server, perhaps a captive portal"
            )
        if flow.clock.monotonic_s() > deadline_s:
            raise httpx.ReadError("its answer takes too long")
    return httpx.Response(
        response.status_code, headers=response.headers, content=bytes(content), request=response.request
    )


def _fault_of(error: httpx.RequestError, url: str, client: httpx.Client, clock: Clock) -> DeliveryFault:
    """Sort network trouble by what is to be done about it."""
    refused = _certificate_error(error)
    if refused is not None:
        return _fault_of_certificate(refused, host_of(url), clock)
    if isinstance(error, httpx.ReadTimeout):
        # The server may still be storing the object, and its write-once is no lock: the same name waits as
        # long once more before it is sent again.
        return Wait(f"{host_of(url)}: no answer to what was sent", retry_after_s=client.timeout.read)
    return Wait(f"{host_of(url)}: {_plain(error)}")


def _certificate_error(error: BaseException | None) -> ssl.SSLCertVerificationError | None:
    """What TLS said below the layers above it."""
    while error is not None and not isinstance(error, ssl.SSLCertVerificationError):
        error = error.__cause__ or error.__context__
    return error


def _fault_of_certificate(error: ssl.SSLCertVerificationError, host: str, clock: Clock) -> DeliveryFault:
    """Whether the clock is to blame, the server's certificate, or somebody in between."""
    problem = _OF_TIME.get(error.verify_code, f"was not accepted ({error.verify_message.rstrip('.')})")
    said = f"{host}: the server's certificate {problem}"
    reading = f"{clock.now():%Y-%m-%d %H:%M} UTC"
    if clock.now() < BUILT_ON:
        return ClockWrong(f"{said}, and this device's clock is wrong: it reads {reading}")
    if not clock.is_synced():
        return ClockWrong(f"{said}, and this device's clock is not synchronised: it reads {reading}")
    if error.verify_code in _OF_TIME:
        return ClockWrong(
            f"{said} by this device's clock, which reads {reading}; if that is right, tell the back office"
        )
    return OperatorNeeded(f"{said}: a captive portal answers, or upload.ca_file lacks the server's authority")


def _plain(error: httpx.RequestError) -> str:
    """What happened, without a library's jargon."""
    if isinstance(error, httpx.ConnectTimeout):
        return "no answer to the connection attempt"
    if isinstance(error, httpx.TimeoutException):
        return "the transfer stalled"
    if isinstance(error, httpx.ProxyError):
        return f"the proxy refused ({error})"
    if isinstance(error, httpx.ConnectError):
        return f"can't connect ({error})"
    return f"the connection broke ({type(error).__name__})"
