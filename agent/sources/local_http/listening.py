"""Sockets on which the local HTTP source listens.

May be relied on: a Unix socket has its rights before anybody can connect to it, replaces only a socket on which
nobody listens, and is removed only by the one who made it.
"""

import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from agent.errors import LocalFault
from agent.loopback import listen_address

BACKLOG = 64
"""Clients that the system lets wait while all connections are in use."""

SOCKET_MODE = 0o660
_PROBE_S = 1.0


@dataclass(frozen=True, slots=True)
class Listener:
    """A listening socket. `path` and `inode` are set for a Unix socket."""

    name: str
    line: socket.socket
    path: Path | None = None
    inode: int = 0

    def close(self) -> None:
        """Stop listening; remove the socket's file unless another one stands in its place."""
        self.line.close()
        if self.path is None:
            return
        with suppress(OSError):
            if self.path.lstat().st_ino == self.inode:
                self.path.unlink()


def listen_on_tcp(address: str) -> Listener:
    """Listen on HOST:PORT. Raises LocalFault, naming the address, when it is taken."""
    host, port = listen_address(address)
    try:
        with _closed_on_failure(socket.AF_INET6 if ":" in host else socket.AF_INET) as line:
            line.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # its connections inherit it
            line.bind((host, port))
            _begin(line)
            shown = f"[{host}]" if ":" in host else host
            return Listener(f"{shown}:{line.getsockname()[1]}", line)
    except OSError as error:
        raise LocalFault(
            f"can't listen on {address}: {error.strerror}. Is another program there? End it, or choose another port "
            "under [local_http] listen. It is tried again."
        ) from None


def listen_on_path(path: Path) -> Listener:
    """Listen on a Unix socket. Raises LocalFault, naming the path, when something else is there."""
    try:
        _refuse_if_in_use(path)
        with _closed_on_failure(socket.AF_UNIX) as line:
            # Made under another name and renamed: whoever connects meets the right rights and a listener.
            temporary = path.with_name(path.name + ".tmp")
            temporary.unlink(missing_ok=True)
            line.bind(str(temporary))
            temporary.chmod(SOCKET_MODE)
            _begin(line)
            temporary.rename(path)
            return Listener(str(path), line, path, path.lstat().st_ino)
    except OSError as error:
        raise LocalFault(
            f"can't listen on {path}: {error.strerror or error}. Check [local_http] socket and that its folder may be "
            "written by the agent. It is tried again."
        ) from None


@contextmanager
def _closed_on_failure(family: int) -> Iterator[socket.socket]:
    line = socket.socket(family)
    try:
        yield line
    except BaseException:
        line.close()
        raise


def _begin(line: socket.socket) -> None:
    line.setblocking(False)  # a client that leaves before it is accepted must not make accept() wait
    line.listen(BACKLOG)


def _refuse_if_in_use(path: Path) -> None:
    """Raise LocalFault unless there is nothing, or a socket left by a process that ended."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise LocalFault(f"{path} is not a socket, and is left alone: choose another path under [local_http] socket.")
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(_PROBE_S)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            return
        except OSError:
            pass  # somebody is there, though busy
    raise LocalFault(f"another program listens on {path}: end it, or choose another path under [local_http] socket.")
