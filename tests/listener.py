"""A service manager's end of NOTIFY_SOCKET, on a real socket."""

import socket


class Listener:
    """Hears what a daemon tells its service manager. `@` in front of an address: it has only a name."""

    def __init__(self, address: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(address.replace("@", "\0", 1))
        self._socket.setblocking(False)
        self.address = address
        self.heard: list[str] = []

    def listen(self) -> list[str]:
        """All lines heard until now, in their order."""
        try:
            while True:
                self.heard += self._socket.recv(4096).decode().split("\n")
        except BlockingIOError:
            return self.heard

    def close(self) -> None:
        """Stop listening."""
        self._socket.close()
