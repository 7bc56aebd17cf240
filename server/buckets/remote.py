"""What buckets across a network share: what a refusal means, how often they are asked, how much is read.

May be relied on: no message holds what the other side said beyond a status and a code word, nor any of our
credentials; every request ends, by its timeouts and TRIES_MAX. Whoever runs the loader tries again later anyway.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from itertools import chain
from urllib.parse import SplitResult, parse_qsl

import tenacity

from server.bucket import BucketFault, BucketRefused, BucketUnavailable
from server.errors import Misconfigured

TRIES_MAX = 3
"""Enough for a connection that was cut or a server that restarts a worker; an outage is for the loader's loop."""

WAIT_S_MAX = 4.0
"""Between two tries at most, at random: thousands of devices make no herd of one loader."""

CONNECT_TIMEOUT_S = 5.0
STALL_TIMEOUT_S = 30.0
"""How long the other side may be silent in the middle of an answer."""

LISTED_MAX = 1000
"""A page of a listing: what every server allows."""

HEAD_BYTES = 1024 * 1024
"""Of an object, read before any of it is handed on, so that a cut can still be mended here: a batch is shorter."""

_PASSING = {408, 409, 423, 425, 429}
_CODE = re.compile(r"\w{1,64}")
_SECRET = re.compile(r"[!-~]+")


def patience(sleep: Callable[[float], None]) -> tenacity.Retrying:
    """Return what repeats a call that raises BucketUnavailable, and raises its last error as it is."""
    return tenacity.Retrying(
        retry=tenacity.retry_if_exception_type(BucketUnavailable),
        stop=tenacity.stop_after_attempt(TRIES_MAX),
        wait=tenacity.wait_random_exponential(multiplier=0.5, max=WAIT_S_MAX),
        sleep=sleep,
        reraise=True,
    )


def refusal(status: int, code: str) -> BucketFault:
    """Sort an answer other than success: what passes by itself, and what a person must look at."""
    answer = f"{status} {code}" if _CODE.fullmatch(code) else str(status)
    if status >= 500 or status in _PASSING:
        return BucketUnavailable(f"the bucket answers {answer}: it is asked again later.")
    if status in (401, 403):
        return BucketRefused(f"the bucket answers {answer}: look at the keys in the environment, and their rights.")
    return BucketRefused(f"the bucket answers {answer}: look at its URL, and whether it is a bucket's.")


def silence(error: Exception) -> BucketUnavailable:
    """Name what happened on the way without its words, which may quote what was sent."""
    return BucketUnavailable(f"the bucket does not answer ({type(error).__name__}): it is asked again later.")


def stranger(kind: str) -> BucketUnavailable:
    """Say that something else answers, which may well say 200."""
    return BucketUnavailable(f"what answers is no {kind}: a proxy perhaps, or a login page.")


@contextmanager
def opened_patiently(
    patiently: tenacity.Retrying, begin: Callable[[], AbstractContextManager[Iterator[bytes]]]
) -> Iterator[Iterator[bytes]]:
    """Give the pieces of what `begin` opens. Until HEAD_BYTES have come, a fault makes it begin again."""
    with ExitStack() as opened:

        def once() -> Iterator[bytes]:
            with ExitStack() as trying:
                pieces = trying.enter_context(begin())
                head: list[bytes] = []
                while sum(map(len, head)) < HEAD_BYTES and (piece := next(pieces, None)) is not None:
                    head.append(piece)
                opened.push(trying.pop_all())
                return chain(head, pieces)

        yield patiently(once)


def refuse_endless(headers: Mapping[str, str]) -> None:
    """Raise BucketUnavailable where an answer does not say how long it is: one that was cut would look whole."""
    if "content-length" not in headers and "transfer-encoding" not in headers:
        raise BucketUnavailable("the bucket sends an object without its length: a proxy perhaps takes it away.")


def next_page(last: str | None, following: str | None) -> str:
    """Return where a listing goes on; raise BucketUnavailable when that is nowhere, or where it stands."""
    if not following or following == last:
        raise BucketUnavailable("the bucket's listing says that it goes on, but not where.")
    return following


def parameters(parts: SplitResult, known: set[str], form: str) -> dict[str, str]:
    """Return what stands behind a URL's question mark; raise Misconfigured, showing `form`, for anything else."""
    pairs = parse_qsl(parts.query, keep_blank_values=True)
    given = dict(pairs)
    # A value is never quoted: somebody may have put a secret there.
    if len(given) < len(pairs) or not given.keys() <= known or not all(given.values()):
        raise Misconfigured(f"the bucket's URL is {form}; behind the question mark it has other things, or twice.")
    return given


def is_host(parts: SplitResult) -> bool:
    """Whether a URL has a host, perhaps a port, and no credentials."""
    try:
        return bool(parts.hostname) and (parts.port is None or parts.port > 0) and "@" not in parts.netloc
    except ValueError:
        return False


def secret_of(environment: Mapping[str, str], variable: str, purpose: str) -> str:
    """Return a credential of the environment; raise Misconfigured, never quoting it, when it can't be one."""
    secret = environment.get(variable, "")
    if not secret:
        raise Misconfigured(f"{purpose} needs {variable}: set it in the environment.")
    if not _SECRET.fullmatch(secret):
        raise Misconfigured(f"{variable} holds a blank, a line break or another character that no credential has.")
    return secret
