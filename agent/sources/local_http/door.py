"""Which request gets which answer.

    POST /ingest-transaction, /functions/v1/ingest-transaction    sales, as on the server
    GET  /metrics                                                 for Prometheus, see docs/metrics.md
    GET  /healthz                                                 200 while sales can be stored

May be relied on: every answer but /metrics is JSON and says what to do next. Nothing that a web page can send is
served: no request with an Origin, and on TCP none under another name than this machine's own. Authorization and
x-device-id are not looked at: whoever may connect may post, in this device's name.
"""

import threading
import traceback
from collections.abc import Callable

import structlog

from agent.clock import Clock
from agent.counters import FAULTS, REQUEST_DURATION, REQUESTS, Counters
from agent.errors import LocalFault, ScoutAgentError, SpoolFull, SpoolMalformed
from agent.intake import Tally
from agent.sources.local_http.committer import Committer, KeyTaken
from agent.sources.local_http.messages import Answer, Head, Refused
from agent.sources.local_http.post import Post, form_of, read_post
from wire.loopback import is_loopback_host

INGEST_PATHS = ("/ingest-transaction", "/functions/v1/ingest-transaction")
METRICS_PATH, HEALTH_PATH = "/metrics", "/healthz"
HEALTHY = b'{"status":"ok"}'
METHODS = dict.fromkeys(INGEST_PATHS, "POST") | dict.fromkeys((METRICS_PATH, HEALTH_PATH), "GET")

EXPOSITION = "text/plain; version=0.0.4; charset=utf-8"
_RETRY_LATER = ("Retry-After", "5")
HEALTH_WITHIN_S = 5.0

LOG_AGAIN_S = 60.0
"""A client that is refused all day must not fill the log: one line for each status so often."""

log = structlog.get_logger()


class LocalDoor:
    """Answers requests. Shared by all connections."""

    def __init__(
        self,
        committer: Committer,
        metrics: Callable[[], bytes],
        *,
        body_bytes_max: int,
        counters: Counters,
        tally: Tally,
        clock: Clock,
    ) -> None:
        self._committer = committer
        self._metrics = metrics
        self._body_bytes_max = body_bytes_max
        self._counters = counters
        self._tally = tally
        self._clock = clock
        self._reading = threading.Lock()
        self._logged_s: dict[int, float] = {}

    def admit(self, head: Head) -> None:
        """Raise Refused when a request is refused whatever its body is."""
        host = head.headers.get("host")  # only an HTTP/1.0 client may leave it out, and no browser is one
        if head.over_tcp and host is not None and not is_loopback_host(host):
            raise Refused(403, "the Host header names another machine: use 127.0.0.1, [::1] or localhost.")
        if "origin" in head.headers:
            raise Refused(403, "web pages may not post here: send it from a program, without an Origin header.")
        method = METHODS.get(head.path)
        if method is None:
            raise Refused(404, f"there is nothing here. Sales are posted to {INGEST_PATHS[0]}.")
        if method != head.method:
            raise Refused(405, f"this path takes {method}.", header=("Allow", method))
        if method == "POST":
            form_of(head.headers)

    def answer(self, head: Head, body: bytes) -> Answer:
        """Answer a request that was admitted; raises Refused."""
        try:
            if head.path == METRICS_PATH:
                return Answer(200, self._metrics(), EXPOSITION)
            if head.path == HEALTH_PATH:
                return self._health()
            # One at a time: it is work for one core, and takes several times the memory of the body.
            with self._reading:
                post = read_post(form_of(head.headers), body, self._body_bytes_max)
            return self._ingest(post)
        except Refused:
            raise
        except Exception as error:  # noqa: BLE001  (its client must hear of it; its words may quote a sale)
            frame = traceback.extract_tb(error.__traceback__)[-1]
            log.error("request_failed", error=type(error).__name__, at=f"{frame.filename}:{frame.lineno}")  # noqa: TRY400
            raise Refused(
                500, "this is a defect of the agent; its log has the place. Nothing was stored: send it again."
            ) from None

    def answered(self, head: Head | None, answer: Answer, seconds: float) -> None:
        """Count an answer, and log refusals."""
        path = head.path if head and head.path in METHODS else "other"
        self._counters.add(REQUESTS, path=path, status=str(answer.status))
        self._counters.took(REQUEST_DURATION, seconds)
        now_s = self._clock.monotonic_s()
        if answer.status >= 400 and now_s - self._logged_s.get(answer.status, float("-inf")) >= LOG_AGAIN_S:
            self._logged_s[answer.status] = now_s
            log.warning("request_refused", path=path, status=answer.status, reason=answer.problem)

    def _ingest(self, post: Post) -> Answer:
        """Answer once the post is stored. Raises Refused."""
        try:
            answer = self._committer.submit(post).result()
        except KeyTaken:
            raise Refused(
                422, "this Idempotency-Key came before with another body: use a new key for a new body."
            ) from None
        except (LocalFault, SpoolMalformed) as fault:
            raise self._cannot_store(fault) from None
        self._tally(answer.accepted, len(answer.rejected))
        return Answer(200, answer.to_json())

    def _health(self) -> Answer:
        """A post without sales takes the way of all posts, to the spool and back. Raises Refused."""
        try:
            self._committer.submit(Post((), (), "", None)).result(HEALTH_WITHIN_S)
        except TimeoutError:
            raise Refused(503, f"the spool did not answer within {HEALTH_WITHIN_S:g} s.", header=_RETRY_LATER) from None
        except (LocalFault, SpoolMalformed) as fault:
            raise self._cannot_store(fault) from None
        return Answer(200, HEALTHY)

    def _cannot_store(self, fault: ScoutAgentError) -> Refused:
        self._counters.add(FAULTS, kind="local")
        status = 507 if isinstance(fault, SpoolFull) else 503
        return Refused(status, f"nothing was stored: send it again. The reason: {fault}", header=_RETRY_LATER)
