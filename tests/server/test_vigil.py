"""What systemd hears of the server: ready once it answers, alive while it does, and nothing otherwise."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from agent_kit import until
from listener import Listener
from programs import data_folder, up
from structlog.testing import capture_logs

from server.config import Address
from server.loop import Loop
from server.systemd import Manager
from server.vigil import Vigil, answers_at

NOWHERE = Address("127.0.0.1", 8700)
DEADLINE_S = 30


@pytest.fixture
def systemd(tmp_path: Path) -> Iterator[Listener]:
    """A service manager that listens."""
    listener = Listener(str(tmp_path / "notify"))
    yield listener
    listener.close()


def _manager(systemd: Listener, watchdog_s: float = 0.2) -> Manager:
    return Manager({"NOTIFY_SOCKET": systemd.address, "WATCHDOG_USEC": str(round(watchdog_s * 1_000_000))})


@contextmanager
def _a_server(answer: bytes) -> Iterator[Address]:
    """Something that gives every connection this answer."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        yield Address(*listener.getsockname())
        thread.join(DEADLINE_S)


def test_up_is_ready_once_it_answers_and_says_what_it_is_at(systemd: Listener) -> None:
    """From the start of PostgreSQL to the last request, each in its order; the watchdog is fed meanwhile."""
    with data_folder() as data:
        with up(data, NOTIFY_SOCKET=systemd.address, WATCHDOG_USEC="400000") as server:
            until(lambda: systemd.listen().count("WATCHDOG=1") >= 3, "it is watched", DEADLINE_S)
            assert server.end() == 0
        told = [line.partition(":")[0] for line in systemd.listen() if line != "WATCHDOG=1"]

    assert [line for line in told if not line.startswith("STATUS=Answers")] == [
        "STATUS=Starts PostgreSQL",
        "STATUS=Brings the database to this version's tables",
        "READY=1",
        "STOPPING=1",
    ]


def test_it_is_not_ready_before_it_answers_and_the_watchdog_starves_once_it_does_not(systemd: Listener) -> None:
    """What is not seen from outside is not said."""
    answers, asked = threading.Event(), threading.Semaphore(0)

    def ask(_: Address) -> bool:
        asked.release()
        return answers.is_set()

    with capture_logs() as logs, Vigil(_manager(systemd), NOWHERE, [], lambda: False, ask):
        assert all(asked.acquire(timeout=DEADLINE_S) for _ in range(3))
        before = list(systemd.listen())
        answers.set()
        until(lambda: "WATCHDOG=1" in systemd.listen(), "it is fed", DEADLINE_S)
        answers.clear()
        until(lambda: len(logs) >= 2, "it is seen to hang", DEADLINE_S)
        starved = len(systemd.listen())
        until(lambda: len(logs) >= 4, "it hangs on", DEADLINE_S)

    assert before == []
    assert systemd.listen()[0] == "READY=1"
    assert len(systemd.listen()) == starved
    assert {log["event"] for log in logs} == {"not_well"}


def test_a_loop_that_died_starves_the_watchdog_though_all_else_is_well(systemd: Listener) -> None:
    """Its name is logged; that a step takes for ever is no death."""
    stuck = threading.Event()
    living, dead = Loop("living", stuck.wait, 1.0), Loop("dead", lambda: None, 1.0)
    with (
        living,
        capture_logs() as logs,
        Vigil(_manager(systemd), NOWHERE, [living, dead], lambda: False, lambda _: True),
    ):
        until(lambda: len(logs) >= 3, "it is seen", DEADLINE_S)
        stuck.set()

    assert [line for line in systemd.listen() if line == "WATCHDOG=1"] == []
    assert logs[0]["loops_ended"] == ["dead"]


def test_nothing_is_said_of_a_server_that_ends(systemd: Listener) -> None:
    """It doesn't answer then, and that is right."""
    asked = threading.Semaphore(0)
    looks = iter([True])

    def ask(_: Address) -> bool:
        asked.release()
        return next(looks, False)

    with capture_logs() as logs, Vigil(_manager(systemd), NOWHERE, [], lambda: True, ask):
        assert all(asked.acquire(timeout=DEADLINE_S) for _ in range(4))

    assert logs == []
    assert "READY=1" in systemd.listen()


def test_any_answer_is_one_and_silence_is_none() -> None:
    """A database that is away is not mended by a restart of ours."""
    with _a_server(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n") as address:
        unavailable = answers_at(address)
    with _a_server(b"") as address:
        silent = answers_at(address)

    assert (unavailable, silent) == (True, False)
    assert answers_at(Address(address.host, address.port)) is False


def test_without_systemd_nobody_looks() -> None:
    """No thread, no request to itself."""
    asked: list[Address] = []
    with Vigil(Manager({}), NOWHERE, [], lambda: False, lambda address: not asked.append(address)):
        pass

    assert asked == []
