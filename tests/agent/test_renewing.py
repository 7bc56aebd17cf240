"""The process that renews: real, against a real server, and what the daemon hears of it."""

import os
import signal
import sys
from pathlib import Path

import pytest
from agent_kit import FakeServer, write_config
from fakes import FakeClock
from office import CODE, Office

from agent import config as configuration
from agent.config import Config
from agent.errors import CredentialsRefused, LocalFault, OperatorNeeded, ScoutAgentError, Wait
from agent.identity import enrol, keep
from agent.renewing import renew_in_child
from agent.transport import client_of


@pytest.fixture
def config(tmp_path: Path, server: FakeServer, office: Office) -> Config:  # noqa: ARG001
    """Give the config of a device that is enrolled."""
    (tmp_path / "spool").mkdir()
    loaded = configuration.load(write_config(tmp_path, server.url, upload={"retry_wait_max_s": 7.5}))
    with client_of(loaded) as client:
        keep(loaded, enrol(loaded, client, FakeClock(), code=CODE, device_id="pi-05", owner=None), None)
    return loaded


def test_another_token_is_in_place_when_it_returns(config: Config, office: Office) -> None:
    """With the config in force, whatever became of its file."""
    (config.token_file.parent / "config.toml").write_text("[device")
    renew_in_child(config)

    assert len(office.issued) == 2
    assert config.token_file.read_text().strip() == office.issued[1]


def test_what_stood_in_the_way_is_raised_as_if_it_had_happened_here(
    config: Config, office: Office, server: FakeServer
) -> None:
    """Each fault as what it is, so that the loop does the right thing about it."""
    answers: list[tuple[tuple[int, bytes], type[ScoutAgentError]]] = [
        ((401, b'{"error":"invalid_client","error_description":"this device is revoked"}'), CredentialsRefused),
        ((404, b"{}"), OperatorNeeded),
        ((500, b""), Wait),
    ]
    found = []
    for said, _ in answers:
        server.answer = lambda _path, _body, said=said: said
        with pytest.raises(ScoutAgentError) as raised:
            renew_in_child(config)
        found.append((said, type(raised.value)))
    server.answer = office.answer

    assert found == answers
    assert config.token_file.read_text().strip() == office.issued[0]


def test_a_token_that_cant_be_kept_is_a_fault_of_this_machine(config: Config, office: Office) -> None:
    """The one that is there stays, whole."""
    config.token_file.with_name("token.tmp").mkdir()
    with pytest.raises(LocalFault, match="token"):
        renew_in_child(config)

    assert config.token_file.read_text().strip() == office.issued[0]


def test_a_process_that_dies_or_cant_be_started_is_a_fault_of_this_machine(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tried again later, as everything."""
    for program in ("/bin/false", "/nowhere/python"):
        monkeypatch.setattr(sys, "executable", program)
        with pytest.raises(LocalFault, match="can't be renewed"):
            renew_in_child(config)


def test_who_stops_the_daemon_stops_it_too(config: Config, office: Office, server: FakeServer) -> None:
    """Though the daemon has those signals blocked, and a child inherits that."""
    asked: list[int] = []

    def answer(path: str, body: bytes) -> tuple[int, bytes] | None:
        if path == "/oauth/nonce":
            (child,) = _children()
            blocked = next(line for line in Path(f"/proc/{child}/status").read_text().splitlines() if "SigBlk" in line)
            asked.append(int(blocked.split()[1], 16))
        return office.answer(path, body)

    server.answer = answer
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
    try:
        renew_in_child(config)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)

    assert asked == [0]


def _children() -> list[int]:
    """Processes that this one started and that renew."""
    found = []
    for arguments in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            text, status = arguments.read_text(), arguments.with_name("status").read_text()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if "agent.renewing" in text and f"PPid:\t{os.getpid()}\n" in status:
            assert "private" not in text
            found.append(int(arguments.parent.name))
    return found
