"""PostgreSQL under our own supervisor: a real one, killed, restarted and refused."""

import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from time import monotonic
from urllib.parse import urlsplit

import psycopg
import pytest
from structlog.testing import capture_logs

from server.data_directory import DataDirectory
from server.embedded import EmbeddedPostgres, Limits, dsn_of
from server.errors import DataDirectoryHeld, Misconfigured, PostgresUnavailable
from server.postgres_binaries import find_binaries

OWNER = """
import sys
from pathlib import Path
from server.data_directory import DataDirectory
from server.embedded import EmbeddedPostgres

with DataDirectory(Path(sys.argv[1])) as data, EmbeddedPostgres(data) as postgres:
    print("ready", postgres.dsn, flush=True)
    sys.stdin.read()
"""
CUSTOMER = "Juan dela Cruz"


@pytest.fixture
def parent() -> Iterator[Path]:
    """Make a folder that PostgreSQL's account can pass through, unlike tmp_path."""
    folder = Path(tempfile.mkdtemp(prefix="scout-embedded-"))
    folder.chmod(0o711)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def data(parent: Path) -> Iterator[DataDirectory]:
    """Hold a new data directory."""
    with DataDirectory(parent / "data") as held:
        yield held


@pytest.fixture
def owner(parent: Path) -> Iterator[subprocess.Popen[str]]:
    """Start another process that owns the data directory and runs PostgreSQL in it."""
    process = subprocess.Popen(
        [sys.executable, "-c", OWNER, parent / "data"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    yield process
    process.kill()
    process.communicate()


def until(condition: Callable[[], bool], timeout_s: float = 30) -> None:
    """Look again and again until `condition` holds."""
    deadline = monotonic() + timeout_s
    while not condition():
        assert monotonic() < deadline, "it did not happen in time"


def dsn_from(owner: subprocess.Popen[str]) -> str:
    """Wait until the owner has PostgreSQL running."""
    assert owner.stdout is not None
    return next(line.split()[1] for line in owner.stdout if line.startswith("ready"))


def store(dsn: str, sale: str) -> None:
    """Commit one row."""
    with psycopg.connect(dsn) as connection:
        connection.execute("create table if not exists sale (name text primary key)")
        connection.execute("insert into sale values (%s)", [sale])


def stored(dsn: str) -> list[str]:
    """Return the committed rows."""
    with psycopg.connect(dsn) as connection:
        return [name for (name,) in connection.execute("select name from sale order by name")]


def processes_in(folder: Path) -> list[int]:
    """Return the processes that work in the folder or name it on their command line, but not this one."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            below = (process / "cwd").readlink().is_relative_to(folder)
            named = os.fsencode(folder) in (process / "cmdline").read_bytes()
        except OSError:
            continue
        if (below or named) and process.name != str(os.getpid()):
            found.append(int(process.name))
    return found


def postmaster_pid(root: Path) -> int:
    """Return the process id that PostgreSQL itself reports."""
    return int((root / "postgres" / "postmaster.pid").read_text().splitlines()[0])


def snapshot(folder: Path) -> list[tuple[str, int, int, int]]:
    """Return what would show that something below the folder was touched."""
    paths = [folder, *sorted(folder.rglob("*"))]
    return [(str(path), path.stat().st_mtime_ns, path.stat().st_uid, path.stat().st_mode) for path in paths]


def busy_backend(connection: psycopg.Connection, dsn: str) -> int:
    """Make the connection's process work for long on a statement with customer data; return its id."""
    pid = connection.info.backend_pid
    connection.pgconn.send_query(f"select '{CUSTOMER}', pg_sleep(600)".encode())
    with psycopg.connect(dsn, autocommit=True) as watcher:
        query = "select wait_event = 'PgSleep' from pg_stat_activity where pid = %s"
        until(lambda: watcher.execute(query, [pid]).fetchone() == (True,))
    return pid


def test_a_restart_keeps_rows_and_url(data: DataDirectory) -> None:
    """What was committed before an orderly stop is there after the next start, at the same address."""
    with EmbeddedPostgres(data) as postgres:
        first_dsn = postgres.dsn
        store(first_dsn, "one")
    assert processes_in(data.path) == []

    with EmbeddedPostgres(data) as postgres:
        assert first_dsn == postgres.dsn
        assert stored(postgres.dsn) == ["one"]
        postgres.stop()
        postgres.stop()


def test_an_url_is_found_only_while_postgres_runs(data: DataDirectory) -> None:
    """Another process learns the URL of a running server, and otherwise what is wrong."""
    with pytest.raises(Misconfigured, match="not a data directory"):
        dsn_of(data.path)
    with EmbeddedPostgres(data) as postgres:
        assert postgres.dsn == dsn_of(data.path)
        assert urlsplit(postgres.dsn).path == "/scout"
    with pytest.raises(PostgresUnavailable, match="scout-server up --data"):
        dsn_of(data.path)


def test_a_taken_port_is_left_to_its_owner(data: DataDirectory) -> None:
    """A stranger on the port of the last start costs the address, not the start."""
    with EmbeddedPostgres(data) as postgres:
        first_port = urlsplit(postgres.dsn).port
    with socket.create_server(("127.0.0.1", first_port or 0)), EmbeddedPostgres(data) as postgres:
        assert urlsplit(postgres.dsn).port != first_port


def test_a_second_holder_is_refused_with_the_first_ones_pid(parent: Path) -> None:
    """The refusal says who holds the directory and since when; a lock file left behind refuses nobody."""
    (parent / "data").mkdir()
    (parent / "data" / "lock").write_text("4194304 (dead)\n")

    with DataDirectory(parent / "data"), pytest.raises(DataDirectoryHeld) as refusal:
        DataDirectory(parent / "data")

    assert f"process {os.getpid()} (" in str(refusal.value)
    assert " since 20" in str(refusal.value)
    DataDirectory(parent / "data").close()


def test_a_path_that_cannot_be_a_data_directory_is_refused(parent: Path) -> None:
    """A file in the place of the folder is named, and what to do is said."""
    (parent / "data").write_text("a file")

    with pytest.raises(Misconfigured, match="Choose a folder that this user owns"):
        DataDirectory(parent / "data")


def test_after_a_kill_of_the_owner_rows_are_there_and_no_orphan_is(parent: Path, owner: subprocess.Popen[str]) -> None:
    """SIGKILL of the whole owner leaves PostgreSQL behind; the next start replaces it."""
    dsn = dsn_from(owner)
    store(dsn, "one")
    orphan = postmaster_pid(parent / "data")
    owner.kill()
    owner.wait()
    assert orphan in processes_in(parent / "data")

    with DataDirectory(parent / "data") as data, capture_logs() as events, EmbeddedPostgres(data) as postgres:
        assert stored(postgres.dsn) == ["one"]
        assert dsn == postgres.dsn
        assert orphan not in processes_in(data.path)

    assert "orphans_ended" in [event["event"] for event in events]
    assert processes_in(parent / "data") == []


def test_after_a_kill_of_the_postmaster_it_runs_again_with_its_rows(data: DataDirectory) -> None:
    """A postmaster killed alone comes back on its port, though its children still worked."""
    with EmbeddedPostgres(data) as postgres, closing(psycopg.connect(postgres.dsn)) as connection:
        dsn = postgres.dsn
        store(dsn, "one")
        child = busy_backend(connection, dsn)
        assert not postgres.ensure_running()
        killed = postmaster_pid(data.path)
        os.kill(killed, signal.SIGKILL)
        assert postgres._process is not None
        postgres._process.wait(30)

        with capture_logs() as events:
            assert postgres.ensure_running()

        assert dsn == postgres.dsn
        assert stored(dsn) == ["one"]
        assert child not in processes_in(data.path)
        assert events[0] == {"event": "postgres_died", "exit_status": -signal.SIGKILL, "log_level": "warning"}
    assert not postgres.ensure_running()


def test_an_interrupted_first_start_is_repeated(parent: Path, owner: subprocess.Popen[str]) -> None:
    """A kill in the middle of initdb leaves nothing that a person must remove."""
    root = parent / "data"
    until(lambda: any(root.glob("postgres.new-*/cluster/global")))
    owner.kill()
    owner.wait()
    assert not (root / "postgres").exists()

    with DataDirectory(root) as data, capture_logs() as events, EmbeddedPostgres(data) as postgres:
        store(postgres.dsn, "one")

    assert list(root.glob("*.new-*")) == []
    assert "leftover_removed" in [event["event"] for event in events]


def test_a_torn_postmaster_pid_does_not_prevent_the_start(data: DataDirectory) -> None:
    """A power cut can leave postmaster.pid empty, which PostgreSQL itself refuses."""
    with EmbeddedPostgres(data) as postgres:
        store(postgres.dsn, "one")
    (data.path / "postgres" / "postmaster.pid").write_bytes(b"")

    with EmbeddedPostgres(data) as postgres:
        assert stored(postgres.dsn) == ["one"]


def test_another_major_version_is_refused_before_anything_is_touched(data: DataDirectory) -> None:
    """The refusal names both versions and leaves the cluster as it was."""
    (data.path / "postgres").mkdir()
    (data.path / "postgres" / "PG_VERSION").write_text("14\n")
    before = snapshot(data.path)

    with pytest.raises(Misconfigured) as refusal:
        EmbeddedPostgres(data).start()

    assert before == snapshot(data.path)
    assert "by PostgreSQL 14," in str(refusal.value)
    assert f"are PostgreSQL {find_binaries(None, os.environ).major}." in str(refusal.value)
    assert "SCOUT_POSTGRES_BIN" in str(refusal.value)


def test_only_the_right_password_opens_the_database(data: DataDirectory) -> None:
    """Every way in asks for SCRAM, and others cannot read the password."""
    with EmbeddedPostgres(data) as postgres:
        password = urlsplit(postgres.dsn).password or ""
        assert (data.path / "secrets" / "postgres-password").read_text().strip() == password
        with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
            psycopg.connect(postgres.dsn.replace(password, "guess"))
        with psycopg.connect(postgres.dsn) as connection:
            methods = connection.execute("select distinct auth_method from pg_hba_file_rules").fetchall()
            assert methods == [("scram-sha-256",)]
            listening = connection.execute(
                "select current_setting('listen_addresses'), current_setting('unix_socket_directories')"
            )
            assert listening.fetchone() == ("127.0.0.1", "")

    modes = {name: stat.S_IMODE((data.path / name).stat().st_mode) for name in ("secrets", "log", "postgres")}
    assert modes == {"secrets": 0o700, "log": 0o700, "postgres": 0o700}
    assert stat.S_IMODE((data.path / "secrets" / "postgres-password").stat().st_mode) == 0o600


def test_a_lost_row_needs_more_than_a_crash(data: DataDirectory) -> None:
    """The settings that durability rests on are the ones in force."""
    with EmbeddedPostgres(data) as postgres, psycopg.connect(postgres.dsn) as connection:
        for name in ("fsync", "full_page_writes", "synchronous_commit", "data_checksums"):
            assert connection.execute("select current_setting(%s)", [name]).fetchone() == ("on",), name


def test_no_value_of_a_statement_reaches_the_log(data: DataDirectory) -> None:
    """Refused values, duplicate keys and the statement of a crashed process stay out of the log."""
    with EmbeddedPostgres(data) as postgres:
        store(postgres.dsn, CUSTOMER)
        with pytest.raises(psycopg.errors.UniqueViolation, match=CUSTOMER):
            store(postgres.dsn, CUSTOMER)
        with (
            psycopg.connect(postgres.dsn) as connection,
            pytest.raises(psycopg.DataError, match=CUSTOMER),
        ):
            connection.execute("select %s::text::integer", [CUSTOMER])
        with closing(psycopg.connect(postgres.dsn)) as connection:
            os.kill(busy_backend(connection, postgres.dsn), signal.SIGKILL)
            until(lambda: postgres.log_file.read_text().count("ready to accept connections") == 2)

    log_text = postgres.log_file.read_text()
    assert "terminated by signal 9" in log_text
    assert CUSTOMER not in log_text
    assert "insert" not in log_text


def test_the_log_stays_bounded(data: DataDirectory) -> None:
    """A full log is put aside once and goes on in the same file."""
    with EmbeddedPostgres(data, limits=Limits(log_bytes_max=100)) as postgres:
        until(lambda: postgres.log_file.stat().st_size > 100)
        assert not postgres.ensure_running()
        assert postgres.log_file.with_name("postgres.log.1").stat().st_size > 100
    assert "shut down" in postgres.log_file.read_text()
    assert b"\0" not in postgres.log_file.read_bytes()


def test_a_failed_start_shows_the_end_of_the_log(data: DataDirectory) -> None:
    """When PostgreSQL exits at once the error carries its own words, and nothing keeps running."""
    with EmbeddedPostgres(data):
        pass
    with (data.path / "postgres" / "postgresql.conf").open("a") as settings:
        settings.write("shared_bufers = 1MB\n")

    with pytest.raises(PostgresUnavailable, match="shared_bufers"):
        EmbeddedPostgres(data, limits=Limits(retry_s=0)).start()

    assert processes_in(data.path) == []


def test_a_lost_password_is_named_not_replaced(data: DataDirectory) -> None:
    """Without its password file an existing cluster is refused with the file's name."""
    with EmbeddedPostgres(data):
        pass
    (data.path / "secrets" / "postgres-password").unlink()

    with pytest.raises(Misconfigured, match=r"secrets/postgres-password is missing"):
        EmbeddedPostgres(data).start()

    assert processes_in(data.path) == []


def test_a_ctrl_c_at_the_terminal_does_not_reach_postgres(data: DataDirectory) -> None:
    """PostgreSQL has a session of its own, so that we end it in order."""
    with EmbeddedPostgres(data):
        assert os.getsid(postmaster_pid(data.path)) == postmaster_pid(data.path)


def test_programs_asked_for_are_the_ones_used(tmp_path: Path) -> None:
    """The argument wins over the environment, and an unfit folder is an error, never passed over."""
    for version in ("14.9", "16.4"):
        folder = tmp_path / version
        folder.mkdir()
        for name in ("postgres", "initdb", "createdb"):
            (folder / name).write_text(f"#!/bin/sh\necho 'postgres (PostgreSQL) {version} (Debian)'\n")
            (folder / name).chmod(0o755)

    assert find_binaries(tmp_path / "16.4", {"SCOUT_POSTGRES_BIN": "/nowhere"}).version == "16.4"
    assert find_binaries(None, {"SCOUT_POSTGRES_BIN": str(tmp_path / "16.4")}).major == "16"
    with pytest.raises(Misconfigured, match=r"14\.9.*15 or newer is needed"):
        find_binaries(None, {"SCOUT_POSTGRES_BIN": str(tmp_path / "14.9")})
    with pytest.raises(Misconfigured, match="lacks PostgreSQL's postgres"):
        find_binaries(tmp_path, {})


@pytest.mark.root
def test_a_closed_parent_folder_is_refused_by_name(parent: Path) -> None:
    """As root, the folder that PostgreSQL's account cannot pass is named, and left closed."""
    closed = parent / "closed"
    closed.mkdir(mode=0o700)

    with (
        DataDirectory(closed / "data") as data,
        pytest.raises(Misconfigured, match=f"chmod o\\+x {closed}'") as refusal,
    ):
        EmbeddedPostgres(data).start()

    assert "/var/lib/scout-server" in str(refusal.value)
    assert stat.S_IMODE(closed.stat().st_mode) == 0o700


@pytest.mark.root
def test_programs_in_a_closed_folder_are_copied_beside_the_data(parent: Path, data: DataDirectory) -> None:
    """As root with an environment in a closed home, PostgreSQL runs from a copy that is made once."""
    closed = parent / "closed"
    closed.mkdir(mode=0o700)
    installed = find_binaries(None, {}).folder
    (closed / "site-packages").symlink_to(installed.parent.parent.parent)
    binaries = closed / "site-packages" / installed.relative_to(installed.parent.parent.parent)

    with EmbeddedPostgres(data, binaries=binaries) as postgres:
        store(postgres.dsn, "one")
        (copy,) = data.path.glob("postgres-binaries-*")
        assert Path(f"/proc/{postmaster_pid(data.path)}/exe").resolve().is_relative_to(copy)
    made_at = copy.stat().st_mtime_ns
    with EmbeddedPostgres(data, binaries=binaries) as postgres:
        assert stored(postgres.dsn) == ["one"]
    assert made_at == copy.stat().st_mtime_ns


@pytest.mark.root
def test_a_cluster_restored_as_root_goes_back_to_postgres_account(data: DataDirectory) -> None:
    """As root, files that a restore gave to root are given to the account again."""
    with EmbeddedPostgres(data) as postgres:
        store(postgres.dsn, "one")
    cluster = data.path / "postgres"
    for path in (cluster, *cluster.rglob("*")):
        os.chown(path, 0, 0)

    with EmbeddedPostgres(data) as postgres:
        assert stored(postgres.dsn) == ["one"]
    assert cluster.stat().st_uid != 0


def test_directories_that_start_one_after_the_other_begin_at_ports_of_their_own(parent: Path):
    """So that one which is down for a moment finds its port free. Of three, all the same would be one in a million."""
    ports = set()
    for name in ("first", "second", "third"):
        with DataDirectory(parent / name) as held, EmbeddedPostgres(held) as postgres:
            ports.add(urlsplit(postgres.dsn).port)

    assert len(ports) > 1
