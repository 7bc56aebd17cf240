"""`scout-server up` as a real process on this machine's loopback, for tests of what runs elsewhere."""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

from house import Server, new_folder, stop


@contextmanager
def a_running_server() -> Iterator[Server]:
    """Start it, with a data directory of its own; leave nothing of it."""
    folder = new_folder()
    server = Server(folder)
    try:
        server.start()
        yield server
    finally:
        stop([server.process])
        shutil.rmtree(folder, ignore_errors=True)


def a_code(server: Server, device: str) -> str:
    """A one-time code for a device, as the back office gives it."""
    code: str = json.loads(server.command("devices", "code", device, "--json"))["code"]
    return code
