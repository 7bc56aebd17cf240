"""`scout-agent enrol`: one command, typed by somebody with a phone in the other hand."""

import json
import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from agent_kit import DEVICE, FakeServer, a_folder_for_all, as_account, open_spool, sale, until, write_config
from daemons import Daemon, agent_command, drop, run_agent
from fakes import FakeClock
from office import CODE, Office

from agent import config as configuration
from agent.device_key import read_key
from agent.enrolling import Enrolled, enrol_device
from agent.errors import LocalFault, Misconfigured, ScoutAgentError, Wait
from agent.first_config import TILL_FOLDER, first_config
from agent.identity import renew
from agent.service import start_service
from agent.transport import client_of

SHELLS_ACCOUNT = 12345


@pytest.fixture
def config(tmp_path: Path, server: FakeServer) -> Path:
    """Write a config without a token."""
    path = write_config(tmp_path, server.url)
    (tmp_path / "token").unlink()
    (tmp_path / "sales").mkdir()
    return path


def enrolled(config: Path, server: str | None = None, code: str = CODE) -> Enrolled:
    """Enrol in this process."""
    return enrol_device(config, server, code, clock=FakeClock(), client_of=client_of)


def test_with_a_config_nothing_but_a_code_is_needed(config: Path, office: Office, tmp_path: Path) -> None:
    """From standard input, so that it is in no list of processes; and it says what comes next."""
    done = run_agent(config, "enrol", "--code", "-", given=f"{CODE.lower()}\n".encode())
    told = done.stdout + done.stderr

    assert done.returncode == 0, told
    assert f"This device is {DEVICE}".encode() in done.stdout
    assert b"systemctl start" in done.stdout
    assert (tmp_path / "token").read_text().strip() == office.issued[0]
    assert not any(secret.encode() in told for secret in (CODE, office.issued[0]))


def test_twice_is_harmless(config: Path, office: Office, tmp_path: Path) -> None:
    """The same key, and a token that counts."""
    keys = []
    for _ in range(2):
        enrolled(config)
        keys.append(read_key(tmp_path / "spool" / "device-key"))

    assert keys[0] == keys[1] is not None
    assert (tmp_path / "token").read_text().strip() == office.issued[1]


def test_a_running_agent_goes_on_by_itself(
    config: Path, office: Office, server: FakeServer, start: Callable[[], Daemon], tmp_path: Path
) -> None:
    """It took sales meanwhile, and delivers them under their numbers."""
    office.refuse_other_tokens(server)
    daemon = start()
    drop(config, "before", 1, 2)
    until(lambda: "credentials_refused" in daemon.events(), "it has no token")
    until(lambda: not list((tmp_path / "sales").glob("*.jsonl")), "sales are taken")
    done = run_agent(config, "enrol", "--server", server.url, "--code", CODE)

    assert done.returncode == 0, done.stderr
    assert b"systemctl start" not in done.stdout
    until(lambda: sorted(server.numbers()) == [1, 2], "they are delivered", 60)


def test_a_daemon_renews_by_a_process_of_its_own_and_loads_no_cryptography(
    config: Path, office: Office, server: FakeServer, start: Callable[[], Daemon], tmp_path: Path
) -> None:
    """A token that opens nothing is replaced while it runs; the resident process maps nothing that signs."""
    enrolled(config)
    office.issued.clear()
    office.refuse_other_tokens(server)
    daemon = start()
    drop(config, "day", 1)
    until(lambda: server.numbers() == [1], "it is delivered with another token", 60)

    assert "token_renewed" in daemon.events()
    maps = Path(f"/proc/{daemon.process.pid}/maps").read_text()
    assert "python" in maps
    assert "cryptography" not in maps
    assert (tmp_path / "token").stat().st_mode & 0o777 == 0o600


def test_a_code_of_another_device_changes_nothing(config: Path, office: Office, tmp_path: Path) -> None:
    """This one has a name already, and sales under it."""
    office.device = "pi-06"
    with pytest.raises(ScoutAgentError, match="for pi-06"):
        enrolled(config)

    assert office.key is None
    assert not (tmp_path / "token").exists()


def test_another_server_than_the_configs_is_named_and_nothing_is_sent(config: Path, office: Office) -> None:
    """Nobody's sales go elsewhere by a typing error."""
    with pytest.raises(Misconfigured, match=r"server\.base_url"):
        enrolled(config, "https://elsewhere.example.com")

    assert office.asked == []


@pytest.mark.usefixtures("office")
def test_without_a_config_one_is_written_for_the_device_that_the_code_names(tmp_path: Path, server: FakeServer) -> None:
    """With the till's folder at the usual place; whoever may not write there hears so before the code is used."""
    config = tmp_path / "etc" / "config.toml"
    done = in_a_home(config, tmp_path / "var", server.url)

    assert done == Enrolled(DEVICE, config, True, "/var/lib/till/sales", tmp_path / "var")
    loaded = configuration.load(config)
    assert (loaded.device.id, loaded.server.base_url) == (DEVICE, server.url)
    assert config.stat().st_mode & 0o777 == 0o640
    assert read_key(tmp_path / "var" / "device-key") is not None
    assert in_a_home(config, tmp_path / "var", server.url).is_config_new is False


def in_a_home(config: Path, spool: Path, server: str) -> Enrolled:
    """Enrol where the usual spool's folder is this one."""
    return enrol_device(config, server, CODE, clock=FakeClock(), client_of=client_of, spool_folder=spool)


def test_a_spool_whose_config_is_gone_keeps_its_device(tmp_path: Path, server: FakeServer, office: Office) -> None:
    """Sales under one name are never delivered under another."""
    (tmp_path / "var").mkdir()
    spool = open_spool(tmp_path / "var" / "spool.db", FakeClock())
    spool.append([sale(1)])
    spool.close()
    office.device = "pi-06"
    with pytest.raises(ScoutAgentError, match="for pi-06"):
        in_a_home(tmp_path / "config.toml", tmp_path / "var", server.url)

    assert not (tmp_path / "config.toml").exists()
    office.device = DEVICE
    assert in_a_home(tmp_path / "config.toml", tmp_path / "var", server.url).device_id == DEVICE


def test_a_server_that_cant_be_reached_leaves_the_code_good(config: Path, office: Office, server: FakeServer) -> None:
    """And says to run the same command again."""
    server.answer = lambda _path, _body: (503, b"")
    with pytest.raises(Wait, match="the code is still good"):
        enrolled(config)
    server.answer = office.answer

    assert enrolled(config).device_id == DEVICE


@pytest.mark.parametrize("arguments", [("--code", CODE), ("--server", "sales.example.com", "--code", CODE)])
def test_without_a_config_the_server_must_be_named_and_be_an_address(
    tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    """In one sentence."""
    done = run_agent(tmp_path / "config.toml", "enrol", *arguments)

    assert done.returncode == 1
    assert b"server" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert CODE.encode() not in done.stderr


def test_the_whole_conversation_shows_no_secret_in_the_list_of_processes(
    config: Path, office: Office, server: FakeServer, tmp_path: Path
) -> None:
    """While it waits for the server, its arguments hold neither code nor key."""
    server.hang.set()
    process = subprocess.Popen(agent_command(config, "enrol", "--code", "-"), stdin=subprocess.PIPE)
    try:
        assert process.stdin
        process.stdin.write(f"{CODE}\n".encode())
        process.stdin.close()
        until(server.hanging.is_set, "it asks the server")
        arguments = Path(f"/proc/{process.pid}/cmdline").read_text()
        variables = Path(f"/proc/{process.pid}/environ").read_text()
    finally:
        server.hang.clear()
        process.wait(30)
    key = json.loads((tmp_path / "spool" / "device-key").read_bytes())["private_key"]

    assert process.returncode == 0
    assert office.key is not None
    assert not any(secret in arguments + variables for secret in (CODE, key))


@pytest.mark.root
def test_what_root_enrols_is_the_agents_own(server: FakeServer) -> None:
    """The files are given to the account of the spool's folder, which then renews by itself."""
    office = Office()
    server.answer = office.answer
    with a_folder_for_all() as home:
        config = write_config(home, server.url)
        (home / "token").unlink()
        (home / "spool").mkdir()
        os.chown(home / "spool", SHELLS_ACCOUNT, SHELLS_ACCOUNT)
        enrolled(config)
        owners = {(home / name).stat().st_uid for name in ("token", "spool/device-key")}
        loaded = configuration.load(config)

        def again() -> str:
            with client_of(loaded) as client:
                renew(loaded, client, FakeClock())
            return "renewed"

        os.chown(home, SHELLS_ACCOUNT, SHELLS_ACCOUNT)
        assert "renewed" in as_account(SHELLS_ACCOUNT, again)

    assert owners == {SHELLS_ACCOUNT}


@pytest.mark.root
def test_where_this_user_may_not_write_nothing_is_sent(server: FakeServer) -> None:
    """Without sudo the code stays good."""
    office = Office()
    server.answer = office.answer
    with a_folder_for_all() as home:
        config = write_config(home, server.url)
        (home / "spool").mkdir(mode=0o700)

        def tried() -> str:
            try:
                enrolled(config)
            except LocalFault as fault:
                return str(fault)
            return "enrolled"

        told = as_account(SHELLS_ACCOUNT, tried)

    assert "sudo" in told
    assert office.asked == []


def test_what_is_written_shows_the_keys_worth_knowing_and_each_example_is_good(tmp_path: Path) -> None:
    """Whoever takes the # away has a config that is accepted; a card's values are there as given."""
    given = {"local_http": {"listen": "127.0.0.1:8710"}, "upload": {"rate_kbit_max": 64}, "server": {"api_key": 'a"b'}}
    text = first_config(DEVICE, "https://sales.example.com", str(tmp_path / "spool"), given)
    examples = re.findall(r"^# (?=\[|[a-z_]+ = )", text, re.MULTILINE)
    written = configuration.read(text, tmp_path / "config.toml")
    with_examples = configuration.read(re.sub(r"^# (?=\[|[a-z_]+ = )", "", text, flags=re.MULTILINE), tmp_path / "a")

    assert len(examples) > 5
    assert (written.server.api_key, written.upload.rate_kbit_max, written.folder.path) == ('a"b', 64, TILL_FOLDER)
    assert (with_examples.folder.path, with_examples.upload.rate_kbit_max) == (TILL_FOLDER, 64)


def test_only_the_services_own_config_starts_the_service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A trial in somebody's folder starts nothing on the machine, though its systemd would."""
    systemctl = tmp_path / "systemctl"
    systemctl.write_text("#!/bin/sh\n")
    systemctl.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)

    assert start_service(tmp_path / "config.toml", systemd_runs=tmp_path) is False
    assert start_service(configuration.CONFIG_DEFAULT, systemd_runs=tmp_path / "not") is False
    assert start_service(configuration.CONFIG_DEFAULT, systemd_runs=tmp_path) is (os.geteuid() == 0)
