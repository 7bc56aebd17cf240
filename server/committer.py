"""Group commit: what several requests brought is stored in one transaction, and each is answered after COMMIT.

    request ─▶ queue (bounded) ─▶ one thread: all that wait ─▶ bronze.store ─▶ COMMIT ─▶ each its outcome

May be relied on: an outcome means that its rows are committed. What raises in a group is tried alone, so
one poisoned delivery harms no other. No timer: while one group commits, the next one gathers by itself.
"""

import queue
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Self

import psycopg
import structlog
from psycopg_pool import ConnectionPool

from server.bronze import Outcome, store
from server.config import Limits
from server.database import transact
from server.errors import ServerError
from server.reading import Delivery

log = structlog.get_logger()


class Overloaded(ServerError):
    """More deliveries wait than can be stored soon: come back later."""


class Stopping(ServerError):
    """The server is stopping: come back when it is up again."""


@dataclass(frozen=True, slots=True)
class _Waiting:
    delivery: Delivery
    outcome: Future[Outcome] = field(default_factory=Future)

    @property
    def rows(self) -> int:
        return len(self.delivery.lines) + len(self.delivery.refused)


class Committer:
    """Owns the thread that commits; `on_committed` is called after each commit."""

    def __init__(self, pool: ConnectionPool, limits: Limits, on_committed: Callable[[], None]) -> None:
        self._pool = pool
        self._limits = limits
        self._on_committed = on_committed
        self._queue: queue.Queue[_Waiting | None] = queue.Queue(limits.posts_waiting_max)
        self._left_over: _Waiting | None = None
        self._bytes_waiting = 0
        self._counting = threading.Lock()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="committer", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def submit(self, delivery: Delivery) -> Future[Outcome]:
        """Queue a delivery; its future holds the outcome once committed, or what prevented it.

        Raises Overloaded when too many or too large ones wait, Stopping after close().
        """
        if self._stopping:
            raise Stopping
        waiting = _Waiting(delivery)
        with self._counting:
            if self._bytes_waiting and self._bytes_waiting + delivery.bytes > self._limits.waiting_bytes_max:
                raise Overloaded
            try:
                self._queue.put_nowait(waiting)
            except queue.Full:
                raise Overloaded from None
            self._bytes_waiting += delivery.bytes
        return waiting.outcome

    def close(self) -> None:
        """Store what waits, then end. Closing twice is harmless."""
        if not self._stopping:
            self._stopping = True
            self._queue.put(None)
            self._thread.join()

    def _run(self) -> None:
        while group := self._next_group():
            with self._counting:
                self._bytes_waiting -= sum(waiting.delivery.bytes for waiting in group)
            self._commit(group)

    def _next_group(self) -> list[_Waiting]:
        """Wait for one delivery and take what else waits; empty when the server stops."""
        first = self._left_over or self._queue.get()
        self._left_over = None
        if first is None:
            return []
        group, rows = [first], first.rows
        while rows < self._limits.rows_per_commit_max:
            try:
                following = self._queue.get_nowait()
            except queue.Empty:
                break
            if following is None:
                self._queue.put(None)
                break
            if rows + following.rows > self._limits.rows_per_commit_max:
                self._left_over = following
                break
            group.append(following)
            rows += following.rows
        return group

    def _commit(self, group: Sequence[_Waiting]) -> None:
        try:
            outcomes = self._store(group)
        except psycopg.OperationalError as error:
            # The database is down: nobody fares better alone.
            for waiting in group:
                waiting.outcome.set_exception(error)
        except Exception as error:  # noqa: BLE001  # whatever it is, its sender must hear of it
            if len(group) == 1:
                group[0].outcome.set_exception(error)
                return
            log.warning("group_split", deliveries=len(group), error=type(error).__name__)
            for waiting in group:
                self._commit([waiting])
        else:
            for waiting, outcome in zip(group, outcomes, strict=True):
                waiting.outcome.set_result(outcome)
            log.debug("group_committed", deliveries=len(group))
            self._on_committed()

    def _store(self, group: Sequence[_Waiting]) -> list[Outcome]:
        deliveries = [waiting.delivery for waiting in group]
        return transact(self._pool, lambda connection: store(connection, deliveries))
