"""Listens, accepts and ends connections: the local HTTP source as the daemon sees it.

May be relied on
- An address that is taken ends nothing: it is tried again, and reported, until it is free.
- At most `connections_max` connections are served. Further clients wait before the door, and the others make way:
  the one that has been idle longest, or each after its next answer.
- `close` lets requests that have come end, for a moment, and answers no post whose sales aren't stored.
"""

import select
import socket
import threading
from collections.abc import Callable
from pathlib import Path

import structlog

from agent.clock import Clock
from agent.config import LocalHttp
from agent.counters import Counters
from agent.errors import LocalFault
from agent.intake import PostStore, Tally, no_tally
from agent.sources.local_http.committer import Committer
from agent.sources.local_http.conversation import Conversation
from agent.sources.local_http.door import LocalDoor
from agent.sources.local_http.listening import Listener, listen_on_path, listen_on_tcp

LISTEN_AGAIN_S = 10.0
"""An address that is taken is tried again so often."""

LOOK_S = 60.0
IDLE_ENOUGH_S = 0.5
"""To be ended without a word. Less, and a client that is just about to post would be cut off."""

ROOM_AGAIN_S = 0.2
NO_ROOM_PAUSE_S = 1.0
CLOSE_WITHIN_S = 2.0

log = structlog.get_logger()


class LocalHttpSource:
    """The ingest endpoint on this device. `store` is used by the committing thread alone."""

    def __init__(
        self,
        config: LocalHttp,
        store: PostStore,
        metrics: Callable[[], bytes],
        *,
        counters: Counters,
        wake: Callable[[], None],
        clock: Clock,
        tally: Tally = no_tally,
        listen_again_s: float = LISTEN_AGAIN_S,
    ) -> None:
        self._config = config
        self._wake = wake
        self._clock = clock
        self._listen_again_s = listen_again_s
        self._committer = Committer(store, counters, clock, damaged=self._tell)
        self._door = LocalDoor(
            self._committer,
            metrics,
            body_bytes_max=config.body_bytes_max,
            counters=counters,
            tally=tally,
            clock=clock,
        )
        self._wanted: dict[str, Callable[[], Listener]] = {}
        if config.listen:
            self._wanted[config.listen] = lambda: listen_on_tcp(config.listen)
        if config.socket:
            self._wanted[config.socket] = lambda: listen_on_path(Path(config.socket))
        self._listeners: dict[str, Listener] = {}
        self._refused: dict[str, LocalFault] = {}  # by address, why it can't be had
        self._defect: Exception | None = None
        self._conversations: set[Conversation] = set()
        self._room = threading.Condition()
        self._stopping = False
        self._stop_line, self._stop_far_end = socket.socketpair()
        self._thread = threading.Thread(target=self._run, name="local-http", daemon=True)

    @property
    def addresses(self) -> list[str]:
        """Where it listens now."""
        return [listener.name for listener in list(self._listeners.values())]

    def start(self) -> None:
        """Listen. What can't be had now is tried again, and reported by `step`."""
        self._committer.start()
        self._listen()
        self._thread.start()

    def step(self) -> float:
        """Report trouble: raise LocalFault for as long as an address can't be had.

        A defect that ended the listening, or a spool proved damaged, is raised as it is: the daemon begins anew.
        """
        if self._defect:
            raise self._defect
        refused = list(self._refused.values())
        if refused:
            raise refused[0]
        return LOOK_S

    def close(self) -> None:
        """Stop listening, let requests end, store what waits. Closing twice is harmless."""
        if self._stopping:
            return
        self._stopping = True
        self._stop_far_end.send(b"x")
        if self._thread.is_alive():
            self._thread.join()
        for listener in self._listeners.values():
            listener.close()
        self._listeners.clear()
        self._end_conversations()
        self._committer.close()
        self._stop_line.close()
        self._stop_far_end.close()

    def _run(self) -> None:
        try:
            self._accept()
        except Exception as error:  # noqa: BLE001  (raised by `step`)
            self._tell(error)

    def _accept(self) -> None:
        while not self._stopping:
            self._listen()
            lines = {listener.line: listener for listener in self._listeners.values()}
            wait_s = LOOK_S if len(lines) == len(self._wanted) else self._listen_again_s
            ready, _, _ = select.select([*lines, self._stop_line], [], [], wait_s)
            for line in ready:
                if line is not self._stop_line and self._wait_for_room():
                    self._welcome(lines[line])

    def _listen(self) -> None:
        """Listen where we don't yet."""
        for address, listen in self._wanted.items():
            if address in self._listeners:
                continue
            try:
                listener = listen()
            except LocalFault as fault:
                self._refused[address] = fault
            else:
                self._refused.pop(address, None)
                self._listeners[address] = listener
                log.info("local_http_listening", address=listener.name)
            self._wake()

    def _tell(self, defect: Exception) -> None:
        self._defect = defect
        self._wake()

    def _wait_for_room(self) -> bool:
        """Whether one more connection may be served; if not, make others give way and wait a moment."""
        with self._room:
            if not self._is_full():
                return True
            self._make_room()
            return self._room.wait_for(lambda: not self._is_full(), ROOM_AGAIN_S)

    def _is_full(self) -> bool:
        return len(self._conversations) >= self._config.connections_max

    def _make_room(self) -> None:
        """End the connection that has been idle longest; while all are busy, let each end with its next answer."""
        idle = {one: since_s for one in self._conversations if (since_s := one.idle_since_s) is not None}
        longest = min(idle, key=lambda one: idle[one], default=None)
        if longest and self._clock.monotonic_s() - idle[longest] >= IDLE_ENOUGH_S:
            longest.end_when_idle()
            return
        for conversation in self._conversations:
            conversation.end_after_answer()

    def _welcome(self, listener: Listener) -> None:
        try:
            line, _ = listener.line.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return  # it left before it was accepted
        except OSError as error:
            self._pause("connection_not_accepted", error)  # no descriptor is free
            return
        conversation = Conversation(line, self._door, self._config, self._clock, over_tcp=listener.path is None)
        with self._room:
            self._conversations.add(conversation)
        client = threading.Thread(target=self._converse, args=(conversation,), name="local-http-client", daemon=True)
        try:
            client.start()
        except RuntimeError as error:
            line.close()
            self._forget(conversation)
            self._pause("connection_not_served", error)  # no thread is free

    def _pause(self, event: str, error: Exception) -> None:
        """Wait a moment when the machine has no room for a client: the next one would fare no better."""
        log.warning(event, reason=str(error))
        select.select([self._stop_line], [], [], NO_ROOM_PAUSE_S)

    def _converse(self, conversation: Conversation) -> None:
        try:
            conversation.run()
        except Exception as error:  # noqa: BLE001  (one connection's end is nobody else's; its words may quote a sale)
            log.error("connection_failed", error=type(error).__name__)  # noqa: TRY400
        finally:
            self._forget(conversation)

    def _forget(self, conversation: Conversation) -> None:
        with self._room:
            self._conversations.discard(conversation)
            self._room.notify_all()

    def _end_conversations(self) -> None:
        with self._room:
            for how in (Conversation.end_when_idle, Conversation.cut):
                for conversation in self._conversations:
                    how(conversation)
                self._room.wait_for(lambda: not self._conversations, CLOSE_WITHIN_S)
