"""One try to hand a batch over, by the bucket or by the ingest endpoint, and what its outcome means.

May be relied on: `by_bucket` and `by_endpoint` return only when the answer is an acknowledgement of exactly
this batch; everything else raises, sorted by what is to be done (agent/errors.py). A captive portal's page, a
cut answer or an answer that speaks of another batch acknowledges nothing. Trying twice is always safe: the
name follows from the content.

Supabase's storage answers HTTP 400 for nearly everything and puts the meaning into the body's `statusCode`
and `code`; so the body counts first.
"""

import gzip
from collections.abc import Callable
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime

import httpx
import orjson

from agent.config import Config
from agent.errors import BatchRefused, CredentialsRefused, DeliveryFault, OperatorNeeded, Wait
from agent.transport import Flow, post
from wire.receipt import IngestAnswer, NotAReceipt

RETRY_AFTER_MAX_S = 3600.0
"""A server may ask for patience, not for silence."""

_BUSY = {408, 423, 425, 429, 503, 544}
_LOGIN_WANTED = 511  # RFC 6585: a captive portal that is honest about itself
_OPERATOR_CODES = {"NoSuchBucket", "InvalidMimeType", "FST_ERR_BAD_URL"}


@dataclass(frozen=True, slots=True)
class Parcel:
    """A batch as it is sent."""

    key: str
    jsonl: bytes
    sha256: str
    rows: int


@dataclass(frozen=True, slots=True)
class Connection:
    """What both paths need: a client with its timeouts, the addresses, and the credentials."""

    client: httpx.Client
    bucket_url: str
    ingest_url: str
    heartbeat_url: str
    api_key: str
    gzip_level: int
    token: Callable[[], str]
    flow: Flow = field(default_factory=Flow)

    @classmethod
    def of(
        cls, config: Config, client: httpx.Client, token: Callable[[], str], flow: Flow | None = None
    ) -> "Connection":
        """What a config says of the server, with a client of its own."""
        return cls(
            client,
            config.bucket_url,
            config.ingest_url,
            config.heartbeat_url,
            config.server.api_key,
            config.upload.gzip_level,
            token,
            flow or Flow(),
        )

    def headers(self) -> dict[str, str]:
        """Credentials for one request. Raises CredentialsRefused when there is no token."""
        headers = {"Authorization": f"Bearer {self.token()}"}
        if self.api_key:
            headers["apikey"] = self.api_key
        return headers


def by_bucket(connection: Connection, parcel: Parcel) -> None:
    """Store the batch as an object. That its name exists already is success: the name holds its hash."""
    url = f"{connection.bucket_url.rstrip('/')}/{parcel.key}"
    response = send(
        connection,
        url,
        content=gzip.compress(parcel.jsonl, connection.gzip_level, mtime=0),
        headers={"Content-Type": "application/gzip"},
    )
    answer = _object(response)
    if response.status_code == 200:
        if answer is None or not str(answer.get("Key", "")).endswith(f"/{parcel.key}"):
            raise OperatorNeeded(f"{url} answered 200, but not as a bucket answers{_page(response)}")
        return
    if answer is not None and _status_of(response, answer) == 409:
        return
    raise fault_of(response, url)


def by_endpoint(connection: Connection, parcel: Parcel) -> IngestAnswer:
    """Post the batch to the ingest endpoint under its own name."""
    url = connection.ingest_url
    response = send(
        connection,
        url,
        content=gzip.compress(parcel.jsonl, connection.gzip_level, mtime=0),
        headers={
            "Content-Type": "application/jsonl",
            "Content-Encoding": "gzip",
            "Idempotency-Key": parcel.key,
        },
    )
    if not response.is_success:
        raise fault_of(response, url)
    try:
        answer = IngestAnswer.parse(response.content)
    except NotAReceipt as error:
        raise OperatorNeeded(f"{url} answered {response.status_code}, but {error}{_page(response)}") from None
    if answer.lines != parcel.rows or answer.sha256 != parcel.sha256:
        raise OperatorNeeded(f"{url} acknowledged another batch than the one sent")
    return answer


def send(connection: Connection, url: str, *, content: bytes, headers: dict[str, str]) -> httpx.Response:
    """POST once with this device's credentials. Raises DeliveryFault when there is no answer, or no token."""
    return post(connection.client, url, content, headers | connection.headers(), connection.flow)


def fault_of(response: httpx.Response, url: str) -> DeliveryFault:
    """Sort an answer that is no acknowledgement by what is to be done about it."""
    answer = _object(response)
    status = _status_of(response, answer)
    code = str((answer or {}).get("code") or "")
    said = f"{url.partition('?')[0]} answered {status}" + (f" {code}" if code else "") + _page(response)
    if status in _BUSY or (status >= 500 and status != _LOGIN_WANTED) or _is_garbled(answer):
        # "Role does not exist" comes as a 500 with code DatabaseError and needs a person, but so does nothing
        # else that comes this way; waiting is right for all.
        return Wait(said, retry_after_s=retry_after_s(response), answered=True)
    if status == 401 or _about_token(status, answer):
        return CredentialsRefused(said)
    if status == 413:
        return BatchRefused(said)  # a proxy says so in HTML, and only this batch is too large for it
    if answer is None or code in _OPERATOR_CODES or not 400 <= status < 500 or status in (404, 405, 407):
        return OperatorNeeded(said)
    return BatchRefused(said)


def _object(response: httpx.Response) -> dict[str, object] | None:
    try:
        answer = orjson.loads(response.content)
    except orjson.JSONDecodeError:
        return None
    return answer if isinstance(answer, dict) else None


def _status_of(response: httpx.Response, answer: dict[str, object] | None) -> int:
    """The status that is meant: the body's, where it has one."""
    inner = str((answer or {}).get("statusCode") or "")
    return int(inner) if inner.isdecimal() and len(inner) == 3 else response.status_code


def _about_token(status: int, answer: dict[str, object] | None) -> bool:
    """Whether a refusal speaks of the token, or of its absence, rather than of this object.

    A 403 that is no JSON comes from somebody in between, who knows nothing of tokens.
    """
    message = str((answer or {}).get("message") or "").lower()
    if status == 403:
        return answer is not None and "row-level security" not in message
    return status == 400 and "authorization" in message


def _is_garbled(answer: dict[str, object] | None) -> bool:
    """Whether the storage server says that what reached it was not HTTP as we sent it."""
    return answer is not None and answer.get("message") == "Client Error" and not answer.get("code")


def _page(response: httpx.Response) -> str:
    """Name what answers in a server's place where that shows."""
    if response.is_redirect:
        return " and points elsewhere, as a captive portal does"
    if response.status_code == _LOGIN_WANTED or response.content[:64].lstrip().lower().startswith((b"<!doc", b"<html")):
        return " with a web page: a captive portal or a proxy stands in between"
    return ""


def retry_after_s(response: httpx.Response) -> float | None:
    """Retry-After in seconds, or as a date, read against the server's own Date."""
    value = response.headers.get("Retry-After", "")
    try:
        if value.isdigit():
            return min(float(value), RETRY_AFTER_MAX_S)
        wait = parsedate_to_datetime(value) - parsedate_to_datetime(response.headers["Date"])
    except (ValueError, KeyError, TypeError):
        return None
    return min(max(0.0, wait.total_seconds()), RETRY_AFTER_MAX_S)
