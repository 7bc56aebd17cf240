"""What tills in a guest say was acknowledged, written down outside of it."""

import json
import socket
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager


class Acknowledged:
    """The sales that were acknowledged, by the way they were handed over."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.by_way: dict[str, list[str]] = {}

    @property
    def all(self) -> set[str]:
        """Each of them."""
        return {name for names in self.by_way.values() for name in names}

    @property
    def counts(self) -> Counter[str]:
        """How many came each way."""
        return Counter({way: len(names) for way, names in self.by_way.items()})

    def write_down(self, connection: socket.socket) -> None:
        """Until the other side is gone. Only a whole line counts."""
        with connection, connection.makefile("rb") as lines:
            for line in lines:
                if line.endswith(b"\n"):
                    way, names = json.loads(line)
                    self.by_way.setdefault(way, []).extend(names)


@contextmanager
def written_down() -> Iterator[Acknowledged]:
    """Listen on this machine's loopback, for one guest's tills after another."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        acknowledged = Acknowledged(int(listener.getsockname()[1]))
        thread = threading.Thread(target=_listen, args=(listener, acknowledged), daemon=True)
        thread.start()
        yield acknowledged
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()


def _listen(listener: socket.socket, acknowledged: Acknowledged) -> None:
    while True:
        try:
            connection, _ = listener.accept()
        except OSError:
            return
        try:
            acknowledged.write_down(connection)
        except OSError:
            continue  # the power went
