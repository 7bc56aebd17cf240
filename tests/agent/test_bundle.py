"""The bundle: enough to help from afar, and nothing that must stay in the shop."""

import gzip
import json
import random
import stat
import subprocess
import sys
import tarfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from agent_kit import BUILT_ON, NOW, a_folder_for_all, a_token, environment, open_spool, sale, write_config
from fakes import FakeClock
from hypothesis import given
from hypothesis import strategies as st

from agent.bundle import harmless, parts_of, secrets_of, write_bundle
from agent.clock import SystemClock
from agent.errors import LocalFault

SALE = "Maria Clara"
API_KEY = "anon-key-4711-secret"
PASSWORD = "proxy-password-0815"

JOURNALCTL = """#!/bin/sh
cat "$(dirname "$0")/journal"
"""


def _entry(message: str, **fields: str) -> str:
    return json.dumps({"__REALTIME_TIMESTAMP": "1800000000000000", "MESSAGE": message} | fields)


def _journal(token: str) -> str:
    """What a journal might hold at its worst."""
    return "\n".join(
        [
            _entry('{"event":"agent_started","device":"pi-05"}', _CMDLINE=f"scout-agent {PASSWORD}"),
            _entry(f'{{"event":"odd","reason":"refused Bearer {token}"}}'),
            _entry(f'{{"event":"odder","url":"http://user:{PASSWORD}@proxy:3128/x?apikey={API_KEY}"}}'),
            _entry("Traceback (most recent call last):"),
            _entry('  File "/usr/lib/agent/spool.py", line 12, in append'),
            _entry(f'    {{"customer": "{SALE}"}}'),
            _entry(f"ValueError: bad sale of {SALE}"),
            _entry(f"  {SALE}"),
            _entry("Started scout-agent.service - Scout agent.", _PID="1"),
            json.dumps({"MESSAGE": [1, 2, 3]}),
            "no JSON",
        ]
    )


@pytest.fixture
def planted(tmp_path: Path) -> Path:
    """Plant marked secrets and sales wherever they can be; return the config."""
    (tmp_path / "sales" / "rejected").mkdir(parents=True)
    (tmp_path / "sales" / "day.jsonl").write_bytes(sale(1, customer=SALE))
    (tmp_path / "sales" / "rejected" / f"{SALE}.json").write_text(SALE)
    (tmp_path / "token").write_text(a_token(datetime(2099, 1, 1, tzinfo=UTC), marker=SALE))
    config = write_config(tmp_path, "http://127.0.0.1:9", server={"api_key": API_KEY})
    spool = open_spool(tmp_path / "spool" / "spool.db", FakeClock())
    spool.append([sale(number, customer=SALE) for number in range(50)])
    spool.seal(NOW, BUILT_ON)
    spool.append([sale(99, customer=SALE)])
    spool.close()
    return config


def contents(bundle: Path) -> dict[str, str]:
    """Every part by name."""
    with tarfile.open(bundle) as archive:
        files = {member.name.rpartition("/")[2]: archive.extractfile(member) for member in archive.getmembers()}
        return {name: file.read().decode() for name, file in files.items() if file}


def test_nothing_secret_and_no_sale_is_in_it(planted: Path) -> None:
    """Planted in config, token, spool, folder, environment and journal; searched in the inflated bytes."""
    home = planted.parent
    token = (home / "token").read_text()
    planted.write_text(f'# {PASSWORD}\n{planted.read_text()}\n[upload]\nproxy_password = "{PASSWORD}"\n')
    programs = home / "bin"
    programs.mkdir()
    (programs / "journal").write_text(_journal(token))
    (programs / "journalctl").write_text(JOURNALCTL)
    (programs / "journalctl").chmod(0o755)
    bundle = home / "help.tar.gz"
    command = ["doctor", "--bundle", str(bundle), "--config", str(planted)]
    done = subprocess.run(
        [sys.executable, "-c", "from agent.cli import main; main()", *command],
        capture_output=True,
        text=True,
        check=False,
        env=environment()
        | {
            "PATH": f"{programs}:/usr/bin:/bin",
            "HTTP_PROXY": f"http://user:{PASSWORD}@127.0.0.1:9",
        },
    )
    inflated = gzip.decompress(bundle.read_bytes()).decode()
    parts = contents(bundle)

    assert done.returncode == 2, done.stderr
    assert f"Written: {bundle}" in done.stdout
    for secret in (SALE, API_KEY, PASSWORD, token, *token.split(".")):
        assert secret not in inflated
        assert secret not in done.stdout
    assert stat.S_IMODE(bundle.stat().st_mode) == 0o600
    assert {"doctor.json", "status.json", "config.json", "log.jsonl", "spool.json", "unit.txt"} < parts.keys()
    assert "agent_started" in parts["log.jsonl"]
    assert "spool.py" in parts["log.jsonl"]
    assert '"ValueError"' in parts["log.jsonl"]
    assert "Started scout-agent.service" in parts["log.jsonl"]


def test_it_tells_what_helps(planted: Path) -> None:
    """The config that is in force, counts, versions; without systemd too."""
    asked: list[tuple[str, ...]] = []

    def absent(command: Any) -> None:
        asked.append(tuple(command))

    parts = parts_of(planted, planted.parent / "spool" / "spool.db", clock=FakeClock(), ask=absent)
    config, spool = json.loads(parts["config.json"]), json.loads(parts["spool.json"])

    assert (config["device.id"], config["server.api_key"]) == ("pi-05", "[removed]")
    assert (spool["rows waiting"], spool["rows unsealed"], spool["batches waiting"]) == (50, 1, 1)
    assert json.loads(parts["versions.json"])["sqlite"]
    assert parts["log.jsonl"] == ""
    assert [command[0] for command in asked] == ["journalctl", "systemctl"]


def test_a_broken_device_gives_a_bundle_too(tmp_path: Path) -> None:
    """Then it is needed most."""
    (tmp_path / "spool.db").write_bytes(b"no database" * 500)
    (tmp_path / "config.toml").write_text(f"[server\n{API_KEY}")
    parts = parts_of(tmp_path / "config.toml", tmp_path / "spool.db", clock=SystemClock(), ask=lambda _command: None)

    assert "not a database" in parts["spool.json"]
    assert parts["config.json"] == "{}"
    assert secrets_of(tmp_path / "none.toml", tmp_path / "none") == set()


def test_an_older_bundle_is_not_overwritten(tmp_path: Path) -> None:
    """Nor is any other file that somebody names by mistake."""
    write_bundle(tmp_path / "a.tar.gz", {"x": "1"}, (), FakeClock())
    with pytest.raises(LocalFault, match="File exists"):
        write_bundle(tmp_path / "a.tar.gz", {"x": "2"}, (), FakeClock())

    assert contents(tmp_path / "a.tar.gz") == {"x": "1"}


@pytest.mark.root
def test_a_full_disk_leaves_no_half_bundle() -> None:
    """A half one helps nobody, and stands in the way of the next."""
    with a_folder_for_all() as folder:
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", folder], check=True)
        try:
            noise = random.Random(1).randbytes(500_000).hex()
            with pytest.raises(LocalFault, match="No space left"):
                write_bundle(folder / "a.tar.gz", {"x": noise}, (), FakeClock())
            assert list(folder.iterdir()) == []
        finally:
            subprocess.run(["umount", folder], check=True)


@given(
    secret=st.text(st.characters(codec="ascii", categories=("L", "N")), min_size=6, max_size=40),
    before=st.text(max_size=30),
    after=st.text(max_size=30),
)
def test_a_known_secret_never_stays(secret: str, before: str, after: str) -> None:
    """Whatever stands around it."""
    assert secret not in harmless(f"{before}{secret}{after}", [secret]).replace("[removed]", "")


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("http://user:pass@host/x", "http://[removed]host/x"),
        ("https://host/x?apikey=abc&y=1 next", "https://host/x?[removed] next"),
        ("Bearer eyJhbGciOi.eyJzdWIiOi.c2ln done", "Bearer [removed] done"),
        ("is it well? yes", "is it well? yes"),
        ("2 files at 10:30", "2 files at 10:30"),
    ],
)
def test_what_looks_like_a_credential_is_removed(text: str, cleaned: str) -> None:
    """Also one that nobody knew of; plain words stay."""
    assert harmless(text, ()) == cleaned
