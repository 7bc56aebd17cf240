"""The config file: what is accepted, and how the rest is refused."""

import tomllib
from pathlib import Path

import msgspec
import pytest
from agent_kit import write_config

from agent import config as configuration
from agent.errors import Misconfigured

EXAMPLE = Path(__file__).parents[2] / "config.example.toml"
URL = "http://127.0.0.1:8700"


def test_the_example_lists_every_key_with_its_default() -> None:
    """Neither more nor less; required keys have an example instead of a default."""
    written = {
        f"{section}.{key}": value
        for section, table in tomllib.loads(EXAMPLE.read_text()).items()
        for key, value in table.items()
    }
    known = configuration.keys()
    defaults = {key: default for key, default in known.items() if default is not msgspec.NODEFAULT}

    assert len(defaults) > 20
    assert list(written) == list(known)
    assert {key: written[key] for key in defaults} == defaults


def test_the_example_is_a_good_config() -> None:
    """A newcomer copies it and changes three lines."""
    config = configuration.load(EXAMPLE)

    assert config.bucket_url == f"{URL}/storage/v1/object/scout-ingest"
    assert config.ingest_url == f"{URL}/ingest-transaction"
    assert config.heartbeat_url == f"{URL}/rest/v1/rpc/heartbeat"
    assert str(config.token_file) == "/var/lib/scout-agent/token"


def test_each_address_can_be_set_for_itself(tmp_path: Path) -> None:
    """Hosted projects spread them."""
    config = configuration.load(write_config(tmp_path, URL + "/", server={"ingest_url": "https://f.example.com/in"}))

    assert config.ingest_url == "https://f.example.com/in"
    assert config.bucket_url == f"{URL}/storage/v1/object/scout-ingest"


@pytest.mark.parametrize(
    ("section", "key", "value", "allowed"),
    [
        ("upload", "mode", "ftp", "bucket"),
        ("upload", "gzip_level", 10, "<= 9"),
        ("upload", "refusals_max", 0, ">= 1"),
        ("upload", "refusals_max", True, "int"),
        ("upload", "refusals_max", "5", "int"),
        ("upload", "refusal_max", 5, "refusals_max"),
        ("upload", "rate_kbit_max", 7, "at least 8"),
        ("upload", "rate_kbit_max", -1, ">= 0"),
        ("upload", "quiet_hours", "22-6", "HH:MM-HH:MM"),
        ("upload", "quiet_hours", "08:00-08:00", "nothing would ever be sent"),
        ("upload", "proxy", "user:secret@proxy:3128", "http://"),
        ("upload", "ca_file", "ca.pem", "absolute path"),
        ("batch", "rows_max", 0, ">= 1"),
        ("batch", "bytes_max", 100, ">= 1024"),
        ("batch", "age_max_s", 0, "> 0"),
        ("batch", "age_max_s", float("nan"), "float"),
        ("batch", "age_max_s", float("inf"), "<= 86400"),
        ("heartbeat", "interval_s", -1.0, "> 0"),
        ("heartbeat", "interval", 60, "interval_s"),
        ("spool", "keep_for_days", 0, ">= 1"),
        ("spool", "directory", "spool", "absolute path"),
        ("folder", "path", "sales", "absolute path"),
        ("tail", "path", "till", "absolute path"),
        ("folder", "settle_s", "2", "float"),
        ("local_http", "listen", "0.0.0.0:8710", "must not be reachable from the network"),
        ("local_http", "listen", "192.168.1.5:8710", "must not be reachable from the network"),
        ("local_http", "listen", "till.example.com:8710", "loopback"),
        ("local_http", "listen", "[::]:8710", "loopback"),
        ("local_http", "listen", ":8710", "loopback"),
        ("local_http", "listen", "127.0.0.1", "HOST:PORT"),
        ("local_http", "listen", "127.0.0.1:99999", "HOST:PORT"),
        ("local_http", "listen", "127.0.0.1:8710/x", "HOST:PORT"),
        ("local_http", "listen", "http://127.0.0.1:8710", "HOST:PORT"),
        ("local_http", "socket", "ingest.sock", "absolute path"),
        ("local_http", "socket", "/" + "x" * 120, "at most 100 bytes"),
        ("local_http", "body_bytes_max", 1000, ">= 1048576"),
        ("local_http", "connections_max", 0, ">= 1"),
        ("device", "id", "Pi 5", "a-z, 0-9"),
        ("device", "id", "0192f0a0-0000-7000-8000-000000000001", "must not be a UUID"),
        ("server", "base_url", "sales.example.com", "https://"),
        ("server", "base_url", "ftp://sales.example.com", "https://"),
        ("server", "base_url", "", "https://"),
        ("server", "bucket_url", "http://[::1", "https://"),
        ("server", "ingest_url", "http://host:99999/", "https://"),
        ("server", "heartbeat_url", "https://user:secret@host/", "without user or password"),
        ("server", "api_key", "ключ", "ASCII"),
        ("server", "api_key", "two\nlines", "ASCII"),
    ],
)
def test_a_wrong_key_or_value_is_refused_with_file_key_and_what_is_allowed(
    tmp_path: Path, section: str, key: str, value: object, allowed: str
) -> None:
    """A person in a shop must be able to mend it with what the message says; secrets are not repeated."""
    path = write_config(tmp_path, URL, **{section: {key: value}})
    path.write_text(path.read_text().replace("NaN", "nan").replace("Infinity", "inf"))
    with pytest.raises(Misconfigured) as raised:
        configuration.load(path)
    message = str(raised.value)

    assert message.startswith(f"{path}: ")
    assert f"{section}.{key}" in message
    assert allowed in message
    assert "secret" not in message


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "device is missing"),
        ('[device]\nid = "pi-05"\n[server]\n', "server.base_url is missing"),
        ("[devise]\n", "unknown key devise; allowed here: batch, device, folder"),
        ("device = 5\n", "device: expected `object`"),
        ("[device\n", "not valid TOML"),
        ('[device]\nid = "\xff"', "not valid TOML"),
    ],
)
def test_a_file_that_is_no_config_is_refused_with_its_name(tmp_path: Path, text: str, says: str) -> None:
    """Before anything else was touched."""
    path = tmp_path / "config.toml"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(Misconfigured) as raised:
        configuration.load(path)

    assert str(raised.value).startswith(f"{path}: ")
    assert says in str(raised.value)


@pytest.mark.parametrize("listen", ["127.0.0.1:8710", "localhost:8710", "[::1]:8710", "127.0.0.2:0", ""])
def test_the_local_listener_takes_loopback_addresses(tmp_path: Path, listen: str) -> None:
    """And is off unless one is given."""
    section = configuration.load(write_config(tmp_path, URL, local_http={"listen": listen})).local_http

    assert section.is_on == bool(listen)


def test_the_folder_must_not_lie_in_the_spools_directory(tmp_path: Path) -> None:
    """Where only the agent writes."""
    path = write_config(tmp_path, URL, folder={"path": str(tmp_path / "spool" / "sales")})
    with pytest.raises(Misconfigured, match=r"folder\.path: must not lie in spool\.directory"):
        configuration.load(path)


@pytest.mark.parametrize(
    ("tail", "other"),
    [
        ("sales", "folder.path"),
        ("sales/processing", "folder.path"),
        (".", "folder.path"),
        ("link", "folder.path"),
        ("spool", "spool.directory"),
        ("spool/../spool/rejected", "spool.directory"),
    ],
)
def test_a_file_belongs_to_one_source(tmp_path: Path, tail: str, other: str) -> None:
    """Whatever the path looks like: two sources would take it twice."""
    (tmp_path / "link").symlink_to(tmp_path / "sales")
    path = write_config(tmp_path, URL, tail={"path": f"{tmp_path}/{tail}"})
    with pytest.raises(Misconfigured, match=rf"tail\.path: must be apart from {other}: neither may lie in the other"):
        configuration.load(path)


def test_each_source_may_be_the_only_one_and_one_must_be(tmp_path: Path) -> None:
    """An agent without a source would look well and take nothing."""
    folder, till = str(tmp_path / "sales"), str(tmp_path / "till")
    places = {}
    for used in ((folder, ""), ("", till), (folder, till)):
        config = configuration.load(write_config(tmp_path, URL, folder={"path": used[0]}, tail={"path": used[1]}))
        assert (config.folder.path, config.tail.path) == used
        places[used] = [str(place.relative_to(tmp_path)) for place in config.rejected_folders]
    with pytest.raises(Misconfigured, match=r"folder\.path, tail\.path, .*: at least one must be set"):
        configuration.load(write_config(tmp_path, URL, folder={"path": ""}))
    without_section = write_config(tmp_path, URL, tail={"path": till})
    without_section.write_text(without_section.read_text().replace(f'[folder]\npath = "{folder}"', ""))
    assert configuration.load(without_section).folder.path == ""

    assert list(places.values()) == [["sales/rejected"], ["spool/rejected"], ["sales/rejected", "spool/rejected"]]


def test_a_missing_file_says_what_to_do(tmp_path: Path) -> None:
    """The newcomer's first mistake."""
    with pytest.raises(Misconfigured, match=r"none\.toml does not exist\. .*sudo scout-agent enrol"):
        configuration.load(tmp_path / "none.toml")
