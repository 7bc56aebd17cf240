"""Tills in the guest: they hand sales to the agent in three ways, and tell the test which of them were acknowledged.

Runs in the guest on its own Python, so it needs nothing but the standard library. `tills.py LIFE PORT` sells until the
power goes. What is acknowledged is told to the test over the network at once, and never before:

    folder      the till flushed the file and its folder: from then on a sale is in a file or in the spool
    add         the command said that it stored the sales
    local_http  the answer was 2xx
"""

import http.client
import itertools
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

HOST = "10.0.2.2"
FOLDER = Path("/var/lib/till/sales")
LOCAL_HTTP = ("127.0.0.1", 8710)
SALES_AT_ONCE = 5

Acknowledged = Callable[[str, list[str]], None]


def main() -> None:
    """Sell in all three ways at once, for as long as there is power."""
    life, port = sys.argv[1:]
    with socket.create_connection((HOST, int(port))) as test:
        test.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        lock = threading.Lock()

        def acknowledged(way: str, names: list[str]) -> None:
            with lock:
                test.sendall(json.dumps([way, names]).encode() + b"\n")

        tills = [
            threading.Thread(target=sell, args=(life, way, hand_over, acknowledged))
            for way, hand_over in (("folder", by_folder), ("add", by_add), ("local_http", by_local_http))
        ]
        for till in tills:
            till.start()
        for till in tills:
            till.join()


def sell(life: str, way: str, hand_over: Callable[[str, bytes], bool], acknowledged: Acknowledged) -> None:
    """Hand over some sales at a time."""
    for number in itertools.count():
        names = [f"{life}-{way}-{number}-{sale}" for sale in range(SALES_AT_ONCE)]
        lines = [json.dumps({"transaction_id": name, "store_id": "102", "peso_value": 150.5}) for name in names]
        if hand_over(f"{life}-{number}", "".join(f"{line}\n" for line in lines).encode()):
            acknowledged(way, names)


def by_folder(name: str, content: bytes) -> bool:
    """Drop a file as a careful till does."""
    temporary = FOLDER / f"{name}.tmp"
    with temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.rename(FOLDER / f"{name}.jsonl")
    folder = os.open(FOLDER, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
    return True


def by_add(_: str, content: bytes) -> bool:
    """Call the command as a person does."""
    done = subprocess.run(["scout-agent", "add", "-"], input=content, stdout=subprocess.PIPE, check=False)
    return done.stdout.decode().startswith(f"{SALES_AT_ONCE} sales stored")


def by_local_http(_: str, content: bytes) -> bool:
    """Post to the agent."""
    connection = http.client.HTTPConnection(*LOCAL_HTTP, timeout=30)
    try:
        connection.request("POST", "/ingest-transaction", content, {"Content-Type": "application/jsonl"})
        answer = connection.getresponse()
        answer.read()
    except OSError:
        return False  # not acknowledged: a till would send it again
    finally:
        connection.close()
    return 200 <= answer.status < 300


if __name__ == "__main__":
    main()
