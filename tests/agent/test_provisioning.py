"""A device without screen or keyboard is enrolled by a file on its boot partition, however often the power fails."""

from pathlib import Path

import pytest
from agent_kit import DEVICE, FakeServer
from fakes import FakeClock
from office import CODE, Office

from agent import config as configuration
from agent.errors import Misconfigured
from agent.first_config import TILL_FOLDER
from agent.provisioning import WAIT_MAX_S, provision, read_card
from agent.transport import client_of


class Device:
    """A device's two file systems: its own, and the boot partition of its card."""

    def __init__(self, home: Path, server: FakeServer) -> None:
        self.card, self.told = home / "boot" / "scout-agent.toml", home / "boot" / "scout-agent.txt"
        self.config_file = home / "etc" / "config.toml"
        self.spool = home / "spool"
        self.clock = FakeClock()
        self.started: list[Path] = []
        self.card.parent.mkdir()
        self.text = (
            f'server = "{server.url}"\ncode = "{CODE.lower()}"\n'
            f'[spool]\ndirectory = "{self.spool}"\n[local_http]\nlisten = "127.0.0.1:0"\n'
        )

    def boot(self) -> bool:
        """Do what the service does at a boot."""
        return provision(
            self.card,
            self.config_file,
            clock=self.clock,
            client_of=client_of,
            start_service=lambda file: not self.started.append(file),
        )

    @property
    def is_enrolled(self) -> bool:
        """Whether an agent could deliver."""
        return self.config_file.exists() and configuration.load(self.config_file).token_file.exists()


@pytest.fixture
def device(tmp_path: Path, server: FakeServer) -> Device:
    """Make a device whose card holds a good file."""
    made = Device(tmp_path, server)
    made.card.write_text(made.text)
    return made


def test_a_good_file_enrols_starts_the_agent_and_is_gone(device: Device, office: Office) -> None:
    """What is left says who this is, without code or token; the sections of the file are the config's."""
    assert device.boot() is True

    config = configuration.load(device.config_file)
    told = device.told.read_text()
    assert (config.device.id, config.local_http.listen, config.folder.path) == (DEVICE, "127.0.0.1:0", TILL_FOLDER)
    assert device.started == [device.config_file]
    assert not device.card.exists()
    assert DEVICE in told
    assert not any(secret.lower() in told.lower() for secret in (CODE, office.issued[0]))


def test_without_a_network_it_tries_until_there_is_one(device: Device, office: Office, server: FakeServer) -> None:
    """It says so on the card, once, and waits longer each time, up to a minute."""
    answered: list[str] = []
    written: set[int] = set()

    def answer(path: str, body: bytes) -> tuple[int, bytes] | None:
        answered.append(path)
        if device.told.exists():
            written.add(device.told.stat().st_mtime_ns)
            assert "tries again" in device.told.read_text()
        return office.answer(path, body) if len(answered) > 8 else (503, b"")

    server.answer = answer
    began_s = device.clock.monotonic_s()

    assert device.boot() is True
    assert device.is_enrolled
    assert len(written) == 1
    assert 5 + 10 + 20 + 40 < device.clock.monotonic_s() - began_s <= 8 * WAIT_MAX_S


def test_a_refused_code_is_said_and_the_file_stays(device: Device, office: Office) -> None:
    """The next boot asks once more, and no sooner."""
    office.code = "0000-0000-0000-0000"
    assert device.boot() is False
    asked = len(office.asked)

    assert "no longer, good" in device.told.read_text()
    assert CODE.lower() not in device.told.read_text().lower()
    assert device.card.read_text() == device.text
    assert (device.started, device.is_enrolled) == ([], False)
    assert device.boot() is False
    assert len(office.asked) == 2 * asked > 0


@pytest.mark.parametrize(
    ("rubbish", "said"),
    [
        (b"", "must say server"),
        (b"\0" * 512, "not valid TOML"),
        (b"\xff\xfes\0e\0", "UTF-8"),
        (b'server = "http://127.0.0.1:1', "not valid TOML"),
        (b'server = 1\ncode = "a"', "must say server"),
        (b'server = "http://127.0.0.1:1"\n[folder]\npath = "/srv"\ncode = "a"', "must say server"),
        (b'server = "http://127.0.0.1:1"\ncode = "a"\nfolder = "/srv"', "a section of the config"),
        (b'server = "http://127.0.0.1:1"\ncode = "a"\n[folder]\npath = ["/srv"]', "a section of the config"),
        (b'server = "http://127.0.0.1:1"\ncode = "a"\n[foldr]\npath = "/srv"', "unknown key foldr"),
        (b'server = "127.0.0.1"\ncode = "a"', "server.base_url"),
        (b'server = "http://127.0.0.1:1"\ncode = "a"\n[spool]\ndirectory = "SPOOL"', "this is no code"),
    ],
)
def test_a_rubbish_file_is_said_and_kept(device: Device, office: Office, rubbish: bytes, said: str) -> None:
    """Nothing is sent, and whoever looks at the card on a PC reads what to mend."""
    device.card.write_bytes(kept := rubbish.replace(b"SPOOL", bytes(device.spool)))

    assert device.boot() is False
    assert said in device.told.read_text()
    assert device.card.read_bytes() == kept
    assert (office.asked, device.started, device.config_file.exists()) == ([], [], False)


def test_an_editors_mark_and_line_ends_of_a_pc_are_no_rubbish(device: Device) -> None:
    """A technician writes the file with whatever editor the PC has."""
    device.card.write_bytes(b"\xef\xbb\xbf" + device.text.replace("\n", "\r\n").encode())

    assert read_card(device.card).code == CODE.lower()
    assert CODE.lower() not in repr(read_card(device.card))


class PowerCutError(BaseException):
    """Nothing after it happens."""


@pytest.mark.parametrize("moment", ["nonce", "enrol", "answer lost", "config", "key", "token", "told", "removed"])
def test_a_cut_at_any_moment_ends_in_an_enrolled_device(
    device: Device, office: Office, server: FakeServer, moment: str
) -> None:
    """The next boot goes on where the power failed; a code that this device used up is no refusal."""
    after_the_cut = _states(device, office, server)
    _put(device, after_the_cut[moment])

    assert device.boot() is True
    assert device.is_enrolled
    assert not device.card.exists()
    assert DEVICE in device.told.read_text()


def test_enrolled_and_cut_before_the_file_was_removed_needs_no_server(
    device: Device, office: Office, server: FakeServer
) -> None:
    """The code may have run out meanwhile."""
    assert device.boot() is True
    device.card.write_text(device.text)
    device.told.write_bytes(b"2027-0")
    server.answer = lambda _path, _body: (500, b"")
    office.asked.clear()

    assert device.boot() is True
    assert (office.asked, device.card.exists()) == ([], False)
    assert DEVICE in device.told.read_text()


Files = dict[Path, bytes]


def _states(device: Device, office: Office, server: FakeServer) -> dict[str, Files]:
    """What is on both file systems at each moment of an enrolment, by the files that were there by then."""
    states: dict[str, Files] = {}

    def answer(path: str, body: bytes) -> tuple[int, bytes] | None:
        states[path.rpartition("/")[2]] = _files(device)
        return office.answer(path, body)

    server.answer = answer
    assert device.boot() is True
    done = _files(device)
    token = device.spool / "token"
    assert token in done
    card = {device.card: device.text.encode()}
    pending = states["enrol"]
    return {
        "nonce": states["nonce"],
        "enrol": pending,
        "answer lost": pending,
        "config": pending | {device.config_file: done[device.config_file]},
        "key": {file: text for file, text in done.items() if file not in (token, device.told)} | card,
        "token": {file: text for file, text in done.items() if file != device.told} | card,
        "told": done | card | {device.told: done[device.told][:9]},
        "removed": done | card,
    }


def _files(device: Device) -> Files:
    home = device.card.parent.parent
    return {path: path.read_bytes() for path in home.rglob("*") if path.is_file() and path.suffix != ".log"}


def _put(device: Device, files: Files) -> None:
    assert device.card in files
    for path in _files(device):
        path.unlink()
    for path, content in files.items():
        path.write_bytes(content)


def test_a_file_that_is_not_toml_is_named(tmp_path: Path) -> None:
    """Not only that something is wrong."""
    with pytest.raises(Misconfigured, match=r"scout-agent\.toml can't be read"):
        read_card(tmp_path / "scout-agent.toml")
