"""The server's package in blank Debian machines with a real systemd: installed, run, hurt, upgraded, and taken away.

A machine shares this one's network, so what answers on its loopback is asked from outside, as a browser would.
"""

import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

import httpx
import psycopg
import pytest
from agent_kit import until
from debs import a_package, another_version
from house import new_folder
from machine import VARIABLES, Machine, a_machine
from roots import SUITES, root_tar, unpacked

from server.data_directory import DataDirectory
from server.embedded import EmbeddedPostgres

pytestmark = [pytest.mark.packages, pytest.mark.root, pytest.mark.timeout(900)]

OLD, NEW = "0.0.1", "0.0.2"
URL = "http://127.0.0.1:8700"
DATA, ENVIRONMENT = "/var/lib/scout-server", "/etc/scout-server/environment"
MIGRATION = "usr/lib/scout-server/lib/server/sql/migrations/900_newest.sql"
STOPS_WITHIN_S = 30.0
WITHIN_S = 120.0
SECRET = "of the tests, and long enough to sign"


@dataclass(frozen=True)
class Packages:
    """The same program as two versions; the new one brings a migration that the old one doesn't know."""

    old: Path
    new: Path


@pytest.fixture(scope="session")
def server_packages(tmp_path_factory: pytest.TempPathFactory) -> Packages:
    """Build them once."""
    old, folder = a_package("scout-server", OLD), tmp_path_factory.mktemp("packages")
    return Packages(
        old, another_version(old, folder, NEW, {MIGRATION: "create table scout_edge.newest (thing text);\n"})
    )


def _in_tree(tree: Path, *command: str) -> None:
    in_tree = ["systemd-nspawn", "--quiet", f"--directory={tree}", "--register=no", "--keep-unit"]
    subprocess.run([*in_tree, *command], check=True, env=VARIABLES, stdin=subprocess.DEVNULL, capture_output=True)


@pytest.fixture(scope="session")
def server_tree(server_packages: Packages, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install the old one into a tree that isn't running, as whoever makes an image does."""
    tree = unpacked(root_tar(SUITES[0]), tmp_path_factory.mktemp("installed") / "root")
    shutil.copy(server_packages.old, tree / "root/scout-server.deb")
    _in_tree(tree, "dpkg", "--install", "/root/scout-server.deb")
    (tree / "root/scout-server.deb").unlink()
    return tree


class BackOffice(Machine):
    """A machine with the server, and what an operator does to it."""

    def install(self, package: Path) -> str:
        """Install a package with the network off; return what was said."""
        shutil.copy(package, self.path("/root") / package.name)
        command = f"unshare --net apt-get install --yes --allow-downgrades /root/{package.name}"
        return self.run(command, timeout_s=300).stdout

    def scout(self, words: str) -> str:
        """Run a command as root does: nothing but its words."""
        return self.run(f"scout-server {words}").stdout.strip()

    def token(self, device: str) -> str:
        """A device's token."""
        return self.scout(f"tokens issue --name {device}")

    def until_it_answers(self) -> None:
        """Wait until systemd has heard that it is ready."""
        until(lambda: self.show("scout-server", "ActiveState") == ["active"], "scout-server is active", WITHIN_S)
        assert httpx.get(f"{URL}/healthz", trust_env=False).status_code == 200

    def sales(self) -> list[str]:
        """The sales in silver, as whoever asks the database sees them."""
        with psycopg.connect(self.scout("dsn")) as connection:
            found = connection.execute("select transaction_id from scout.silver_transactions order by 1")
            return [name for (name,) in found]

    def until_in_silver(self, *names: str) -> None:
        """Wait until exactly these are there."""
        until(lambda: self.sales() == sorted(names), f"{names} are in silver", WITHIN_S)


def sell(token: str, *names: str) -> None:
    """Post sales as a till does that goes on until it has an answer."""
    lines = b"".join(b'{"transaction_id":"%s","store_id":"102","peso_value":1.50}\n' % name.encode() for name in names)
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/jsonl"}

    def is_taken() -> bool:
        try:
            answer = httpx.post(f"{URL}/ingest-transaction", content=lines, headers=headers, trust_env=False)
        except httpx.TransportError:
            return False
        assert answer.status_code in (200, 503), answer.text
        return answer.status_code == 200

    until(is_taken, "the sales are acknowledged", WITHIN_S)


Boot = Callable[[Path], AbstractContextManager[BackOffice]]


@pytest.fixture
def boot(tmp_path: Path) -> Boot:
    """Give a way to boot a tree."""

    @contextmanager
    def booted(tree: Path) -> Iterator[BackOffice]:
        with a_machine(tmp_path, tree) as machine:
            yield BackOffice(machine.tree, machine.leader)

    return booted


@pytest.mark.parametrize("suite", SUITES)
def test_two_commands_from_a_blank_server_to_a_fleet_page(
    suite: str, server_packages: Packages, boot: Boot, tmp_path: Path
) -> None:
    """Without a network; the second right after the first, which waits for nothing; the page as a browser sees it."""
    with boot(unpacked(root_tar(suite), tmp_path / "root")) as office:
        began = monotonic()
        said = office.install(server_packages.old)
        token = office.scout("tokens issue --role service_role --name back-office")
        took_s = monotonic() - began
        with httpx.Client(base_url=URL, trust_env=False, follow_redirects=True) as browser:
            office.until_it_answers()
            stranger = browser.get("/fleet")
            page = browser.post("/fleet/sign-in", data={"token": token})
        warnings = office.run("journalctl --unit scout-server --priority warning --output cat").stdout

    print(f"{suite}: from a blank server to a token in {took_s:.1f} s")
    assert "sudo scout-server tokens issue --role service_role" in said
    assert 'action="/fleet/sign-in' in stranger.text
    assert page.status_code == 200
    assert page.url.path == "/fleet"
    assert "sign-out" in page.text
    assert warnings == ""


def test_it_comes_back_whatever_is_killed_and_stops_in_time(server_tree: Path, boot: Boot) -> None:
    """Its own process, its PostgreSQL, and systemd's stop: what was acknowledged stays, and nothing of it is root's."""
    with boot(server_tree) as office:
        office.until_it_answers()
        token = office.token("pi-05")
        sell(token, "a1")
        (main,) = office.show("scout-server", "MainPID")
        office.run(f"kill -KILL {main}")
        sell(token, "a2")
        (killed,) = office.show("scout-server", "NRestarts")
        office.run(f"sh -c 'kill -KILL $(head -1 {DATA}/postgres/postmaster.pid)'")
        sell(token, "a3")
        (after_postgres,) = office.show("scout-server", "NRestarts")
        began = monotonic()
        office.run("systemctl stop scout-server")
        took_s = monotonic() - began
        result = office.show("scout-server", "ActiveState", "Result")
        left = office.run("pgrep -u scout-server", check=False).stdout
        office.run("systemctl start scout-server")
        sell(token, "a4")
        office.until_in_silver("a1", "a2", "a3", "a4")
        owners = office.run(f"find {DATA} -not -user scout-server").stdout
        status = office.scout("status")
        (text,) = office.show("scout-server", "StatusText")

    assert (killed, after_postgres) == ("1", "1")
    assert result == ["inactive", "success"]
    assert took_s < STOPS_WITHIN_S
    assert left == ""
    assert owners == ""
    assert "pi-05" in status
    assert text == "Answers on 127.0.0.1 port 8700"


def test_a_hung_server_is_restarted_by_the_watchdog(server_tree: Path, boot: Boot) -> None:
    """It is stopped where it stands, so nothing of it answers, and nothing of it could say so."""
    with boot(server_tree) as office:
        drop_in = office.path("/run/systemd/system/scout-server.service.d/test.conf")
        drop_in.parent.mkdir(parents=True, exist_ok=True)
        drop_in.write_text("[Service]\nWatchdogSec=4s\n")
        office.run("systemctl daemon-reload")
        office.run("systemctl restart scout-server")
        (main,) = office.show("scout-server", "MainPID")
        office.run(f"kill -STOP {main}")
        until(lambda: office.show("scout-server", "NRestarts") == ["1"], "the watchdog restarts it", WITHIN_S)
        office.until_it_answers()
        journal = [entry["MESSAGE"] for entry in office.journal("scout-server")]

    assert any("Watchdog timeout" in line for line in journal)


def test_systemd_has_nothing_to_say_about_the_installed_units(server_tree: Path, boot: Boot) -> None:
    """Each with its drop-in, where the package put them."""
    with boot(server_tree) as office:
        units = office.run("sh -c 'ls /usr/lib/systemd/system/scout-*'").stdout
        names = [name for name in units.split() if name.endswith((".service", ".timer"))]
        said = office.run(f"systemd-analyze verify {' '.join(names)}")
        hardened = office.show("scout-backup.service", "ProtectSystem", "User")

    assert len(names) == 9
    assert (said.stdout, said.stderr) == ("", "")
    assert hardened == ["strict", "scout-server"]


@contextmanager
def _a_database() -> Iterator[str]:
    """A database of somebody else's, reached by its URL."""
    folder = new_folder()
    try:
        with DataDirectory(folder / "data") as data, EmbeddedPostgres(data) as postgres:
            with psycopg.connect(postgres.dsn, autocommit=True) as connection:
                connection.execute("create role project login createrole createdb password 'of-the-tests'")
                connection.execute("create database project owner project")
            port = psycopg.conninfo.conninfo_to_dict(postgres.dsn)["port"]
            yield f"postgresql://project:of-the-tests@127.0.0.1:{port}/project"
    finally:
        shutil.rmtree(folder)


def test_against_a_given_database_it_migrates_serves_and_is_loaded_by_timers(server_tree: Path, boot: Boot) -> None:
    """As docs and comments in the file say; each timer's unit beside itself and beside the others does no harm."""
    with _a_database() as url, boot(server_tree) as office:
        office.run("install -d -o scout-server -g scout-server /srv/scout-ingest")
        lines = office.path(ENVIRONMENT).read_text()
        for name in ("SCOUT_COMMAND=up", "SCOUT_DATA="):
            lines = lines.replace(f"\n{name}", f"\n#{name}")
        given = {
            "SCOUT_COMMAND": "serve",
            "DATABASE_URL": url,
            "SCOUT_BUCKET": "file:///srv/scout-ingest",
            "SUPABASE_JWT_SECRET": SECRET,
        }
        office.path(ENVIRONMENT).write_text(lines + "".join(f"{name}={text}\n" for name, text in given.items()))
        office.run("systemctl restart scout-server")
        office.until_it_answers()
        token = office.token("pi-05")
        ready = httpx.get(f"{URL}/readyz", trust_env=False).json()
        office.run("systemctl enable --now scout-load.timer scout-sweep.timer scout-etl.timer")
        sell(token, "a1")
        body = b'{"transaction_id":"a2","store_id":"102","peso_value":1.50}\n'
        stored = httpx.post(
            f"{URL}/storage/v1/object/scout-ingest/2026-01-20/pi-05/a.jsonl",
            content=body,
            headers={"Authorization": f"Bearer {token}"},
            trust_env=False,
        )
        # At once, several times, as no timer does.
        both = "scout-server load --sweep & scout-server load --sweep & scout-server etl & scout-server etl & wait"
        office.run(f"sh -c '{both}'")
        office.run("systemctl start scout-load scout-sweep scout-etl")
        office.until_in_silver("a1", "a2")
        until(lambda: office.show("scout-etl.timer", "LastTriggerUSecMonotonic") != ["0"], "the timer runs", WITHIN_S)
        failed = office.run("systemctl --failed --plain --no-legend").stdout

    assert stored.status_code == 200
    assert ready == {"status": "ready", "database": "answers", "schema": "current", "bucket": "answers"}
    assert failed == ""


def test_an_upgrade_migrates_and_a_downgrade_is_refused_without_harm(
    server_packages: Packages, server_tree: Path, boot: Boot
) -> None:
    """The operator's settings stay; what the older version refuses to touch is there when the newer is back."""
    with boot(server_tree) as office:
        office.until_it_answers()
        token = office.token("pi-05")
        sell(token, "a1")
        with office.path(ENVIRONMENT).open("a") as lines:
            lines.write("SCOUT_BACKUP_KEEP=3\n")
        office.install(server_packages.new)
        office.until_it_answers()
        sell(token, "a2")
        office.until_in_silver("a1", "a2")
        version = office.scout("--version")
        office.install(server_packages.old)
        until(lambda: "900_newest" in _said(office), "the older one refuses", WITHIN_S)
        refused = office.show("scout-server", "ActiveState")
        office.install(server_packages.new)
        office.until_it_answers()
        sell(token, "a3")
        office.until_in_silver("a1", "a2", "a3")
        settings = office.path(ENVIRONMENT).read_text()
        mode = office.run(f"stat -c '%U:%G %a' {ENVIRONMENT}").stdout.strip()

    assert version == f"scout-server {NEW}"
    assert refused != ["active"]
    assert settings.endswith("SCOUT_BACKUP_KEEP=3\n")
    assert mode == "root:scout-server 640"


def _said(office: BackOffice) -> str:
    return office.run("journalctl --unit scout-server --output cat").stdout


@pytest.mark.parametrize("prepared", ["install -d -o scout-server -g scout-server -m 0750 {}", "true"])
def test_a_backup_by_the_timers_unit_is_restored_by_the_documented_commands(
    server_tree: Path, boot: Boot, prepared: str
) -> None:
    """Whoever made the directory; the device's token counts afterwards, and all files are the service's own."""
    with boot(server_tree) as office:
        office.until_it_answers()
        token = office.token("pi-05")
        sell(token, "a1", "a2")
        office.until_in_silver("a1", "a2")
        office.run("install -d -o scout-server -g scout-server -m 0700 /srv/backup")
        office.run("systemctl start scout-backup")
        sell(token, "a3")
        office.run("systemctl stop scout-server")
        office.run(f"mv {DATA} {DATA}.before")
        office.run(prepared.format(DATA))
        said = office.scout("restore /srv/backup")
        office.run("systemctl start scout-server")
        office.until_it_answers()
        owners = office.run(f"find {DATA} -not -user scout-server").stdout
        restored = office.sales()
        sell(token, "a3")
        office.until_in_silver("a1", "a2", "a3")
        held = json.loads(office.scout("tokens list --json"))
        office.scout("devices confirm-revoked --yes")

    assert "confirm-revoked" in said
    assert owners == ""
    assert restored == ["a1", "a2"]
    assert held


def test_removed_it_keeps_everything_and_purged_it_keeps_the_warehouse(
    server_packages: Packages, server_tree: Path, boot: Boot
) -> None:
    """It says where; and installed again with that folder back in place, all is as it was."""
    with boot(server_tree) as office:
        office.until_it_answers()
        token = office.token("pi-05")
        sell(token, "a1")
        office.until_in_silver("a1")
        office.run("apt-get remove --yes scout-server", timeout_s=300)
        removed = office.run(
            "sh -c 'pgrep -u scout-server; systemctl list-unit-files --no-legend scout-*'", check=False
        )
        kept = office.path(f"{DATA}/postgres").is_dir(), office.path(ENVIRONMENT).exists()
        purged = office.run("apt-get purge --yes scout-server", timeout_s=300)
        gone = office.path(DATA).exists(), office.path("/etc/scout-server").exists()
        (backup,) = office.run("sh -c 'ls -d /var/backups/scout-server/*'").stdout.split()
        office.install(server_packages.old)
        office.run("systemctl stop scout-server")
        office.run(f"rm -r {DATA}")
        office.run(f"mv {backup} {DATA}")
        office.run("systemctl start scout-server")
        sell(token, "a2")
        office.until_in_silver("a1", "a2")

    assert removed.stdout == ""
    assert kept == (True, True)
    assert backup in purged.stdout + purged.stderr
    assert gone == (False, False)
