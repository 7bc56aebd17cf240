"""Group commit: what several clients posted is stored in one commit, and each is answered after it.

    connection ─▶ queue ─▶ one thread: all that wait ─▶ Store.append ─▶ each its answer

May be relied on: an answer means that its records and its key are durable, together. What raises in a group is
tried alone, so that one post harms no other. No timer: while one group commits, the next one gathers by itself.
The queue needs no bound of its own: a connection waits for its answer before it posts again.
"""

import queue
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from datetime import timedelta

import structlog

from agent.clock import Clock
from agent.counters import COMMITS, Counters
from agent.errors import LocalFault, SpoolFull, SpoolMalformed
from agent.intake import PostStore, TakenPost
from agent.sources.local_http.post import Post
from wire.receipt import IngestAnswer
from wire.record import format_instant

KEYS_MAX = 5000
"""Idempotency-Keys remembered, about 1.5 MB. A shop posts some hundred sales a day; retries come within hours."""

KEYS_KEPT = timedelta(days=7)
KEYS_BETWEEN_FORGETTING = 1000
CLOSE_WITHIN_S = 2.0


log = structlog.get_logger()


class KeyTaken(Exception):
    """Another body came under this Idempotency-Key before; nothing was stored."""


class Stopping(LocalFault):
    """The agent is stopping."""


@dataclass(frozen=True, slots=True)
class _Waiting:
    post: Post
    answer: Future[IngestAnswer] = field(default_factory=Future)


class Committer:
    """Owns the thread that commits. `store` is that thread's alone."""

    def __init__(
        self,
        store: PostStore,
        counters: Counters,
        clock: Clock,
        *,
        damaged: Callable[[SpoolMalformed], None] = lambda _fault: None,
        keys_max: int = KEYS_MAX,
        keys_between_forgetting: int = KEYS_BETWEEN_FORGETTING,
    ) -> None:
        """`damaged` hears, from the committing thread, that the spool is proved damaged: no later post fares better."""
        self._store = store
        self._counters = counters
        self._clock = clock
        self._queue: queue.SimpleQueue[_Waiting | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._stopping = False
        self._damaged = damaged
        self._keys_max = keys_max
        self._keys_between_forgetting = keys_between_forgetting
        self._known: dict[str, str] = {}  # by key, the hash of what came under it; as in the store
        self._keys_until_forgetting = 0
        self._thread = threading.Thread(target=self._run, name="local-http-committer", daemon=True)

    def start(self) -> None:
        """Begin to commit."""
        self._known = self._store.posts()
        self._thread.start()

    def submit(self, post: Post) -> Future[IngestAnswer]:
        """Queue a post; its future holds the answer once committed, or KeyTaken, or what prevented it.

        Raises Stopping after close().
        """
        waiting = _Waiting(post)
        with self._lock:
            if self._stopping:
                raise Stopping
            self._queue.put(waiting)
        return waiting.answer

    def close(self) -> None:
        """Store what waits, then end; a disk that hangs is waited for only so long. Closing twice is harmless."""
        with self._lock:
            if not self._stopping:
                self._stopping = True
                self._queue.put(None)
        if self._thread.is_alive():
            self._thread.join(CLOSE_WITHIN_S)

    def _run(self) -> None:
        while group := self._next_group():
            self._commit(group)
            self._forget_old_keys()

    def _next_group(self) -> list[_Waiting]:
        """Wait for one post and take what else waits; empty when the agent stops."""
        group: list[_Waiting] = []
        waiting = self._queue.get()
        while waiting is not None:
            group.append(waiting)
            try:
                waiting = self._queue.get_nowait()
            except queue.Empty:
                return group
        if group:
            self._queue.put(None)
        return group

    def _commit(self, group: Sequence[_Waiting]) -> None:
        try:
            outcomes = self._stored([waiting.post for waiting in group])
        except Exception as error:  # noqa: BLE001  (whatever it is, its sender must hear of it)
            if isinstance(error, SpoolMalformed):
                self._damaged(error)
            # A smaller post may still have room. With any other fault of this machine nobody fares better alone.
            is_everybodys = isinstance(error, (LocalFault, SpoolMalformed)) and not isinstance(error, SpoolFull)
            if len(group) == 1 or is_everybodys:
                for waiting in group:
                    waiting.answer.set_exception(error)
                return
            for waiting in group:
                self._commit([waiting])
        else:
            for waiting, outcome in zip(group, outcomes, strict=True):
                if isinstance(outcome, KeyTaken):
                    waiting.answer.set_exception(outcome)
                else:
                    waiting.answer.set_result(outcome)

    def _stored(self, posts: Sequence[Post]) -> list[IngestAnswer | KeyTaken]:
        """Store what is new of these, in one commit; return an outcome for each."""
        payloads: list[bytes] = []
        fresh: dict[str, str] = {}  # keys of this group, with their hashes
        outcomes: list[IngestAnswer | KeyTaken] = []
        for post in posts:
            rows = len(post.payloads)
            known = self._known.get(post.key, fresh.get(post.key)) if post.key is not None else None
            if known is None:
                payloads += post.payloads
                if post.key is not None:
                    fresh[post.key] = post.sha256
                outcomes.append(IngestAnswer(rows, 0, post.rejected, post.sha256))
            elif known == post.sha256:
                outcomes.append(IngestAnswer(0, rows, post.rejected, post.sha256))
            else:
                outcomes.append(KeyTaken())
        noted_at = self._noted_at()
        self._store.append(payloads, [TakenPost(key, sha256, noted_at) for key, sha256 in fresh.items()])
        self._known |= fresh
        self._keys_until_forgetting -= len(fresh)
        if payloads or fresh:
            self._counters.add(COMMITS)
        return outcomes

    def _noted_at(self) -> str | None:
        """Now, if the clock is to be believed: one that is set later must not make keys look old."""
        return format_instant(self._clock.now()) if self._clock.is_synced() else None

    def _forget_old_keys(self) -> None:
        """Seldom, and after the answers: whether it succeeds is nothing to a client."""
        if self._keys_until_forgetting >= 0:
            return
        before = format_instant(self._clock.now() - KEYS_KEPT) if self._clock.is_synced() else None
        try:
            self._store.forget_posts(self._keys_max, before)
            self._known = self._store.posts()
        except Exception as error:  # noqa: BLE001  (it is tried again; clients wait for this thread)
            log.warning("old_keys_not_forgotten", error=type(error).__name__)
            return
        self._keys_until_forgetting = self._keys_between_forgetting
