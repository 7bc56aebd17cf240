"""One connection to the spool: transactions, and what goes wrong with a disk, in words that the agent knows.

May be relied on
- A transaction is there whole and durable, or not at all; where even rolling back fails, another connection begins
  from what is on the disk.
- sqlite3's errors come out as LocalFault (disk full, locked, input/output: try again) or SpoolMalformed (the file
  is proved damaged). Other people's mistakes only; ours stay what they are.
- A spool belongs to the device that opened it first.
- While a connection is open, the file is not moved aside: that waits for `spool.lock` (agent/damage.py).
"""

import random
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from agent.clock import Clock
from agent.damage import in_words, proves_damage, shared_lock
from agent.errors import LocalFault, SpoolMalformed, SpoolRefused
from agent.schema import open_database
from agent.space import Space
from agent.statements import queries_of
from wire.batch import BatchName, content_hash, sealing_day
from wire.record import format_instant

SEQS_PER_EPOCH = 1_000_000_000_000

START_THE_AGENT = "The agent moves it aside and salvages what can be read: start it, if it doesn't run."

SQL = queries_of("spool")


class SpoolConnection:
    """What every user of the spool's file shares. Each thread and each process opens its own."""

    def __init__(
        self, path: Path, device_id: str, *, clock: Clock, rng: random.Random, space: Space | None = None
    ) -> None:
        self.device_id = device_id
        self._path = path
        self._clock = clock
        self._rng = rng
        self._space = space
        try:
            self._lock = shared_lock(path)
        except OSError as error:
            raise LocalFault(f"{path}: {error}. Check that the directory exists and may be written.") from error
        try:
            self._connection = open_database(path)
            try:
                self._claim()
            except BaseException:
                self._connection.close()
                raise
        except BaseException:
            self._lock.close()
            raise

    def close(self) -> None:
        """Close the connection; everything committed stays."""
        self._connection.close()
        self._lock.close()

    def _claim(self) -> None:
        """A spool belongs to the device that opened it first: its name is in every batch."""
        with self._transaction():
            self._connection.execute(SQL["claim_device"], {"device_id": self.device_id})
            (owner,) = self._connection.execute(SQL["owner"]).fetchone()
        if owner != self.device_id:
            raise SpoolRefused(
                f"{self._path} belongs to device {owner}, not {self.device_id}. Set device.id back to {owner}, "
                f"or choose another spool.directory for {self.device_id}."
            )

    def _store_batch(self, number: int, name: BatchName, jsonl: bytes) -> None:
        """Note a run as sealed. Part of a transaction."""
        self._connection.execute(
            SQL["insert_batch"],
            {
                "epoch_number": number,
                "first_seq": name.first_seq,
                "last_seq": name.last_seq,
                "key": name.key,
                "sha256": content_hash(jsonl),
                "bytes": len(jsonl),
                "now": format_instant(self._clock.now()),
            },
        )

    def _name(self, epoch: str, first_seq: int, last_seq: int, jsonl: bytes, built_on: datetime) -> BatchName:
        """The name that a run gets when it is sealed now."""
        day = sealing_day(self._clock.now().date(), built_on.date())
        return BatchName(day, self.device_id, epoch, first_seq, last_seq, content_hash(jsonl)[:16])

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        """Write all or nothing, durably. Trouble with the disk surfaces as LocalFault."""
        with self._faults():
            self._connection.execute("begin immediate")
            try:
                yield
                self._connection.execute("commit")
            except BaseException:
                self._roll_back()
                raise

    @contextmanager
    def _reading(self) -> Iterator[None]:
        """See one moment of the spool across several statements."""
        with self._faults():
            self._connection.execute("begin")
            try:
                yield
            finally:
                self._roll_back()

    @contextmanager
    def _faults(self) -> Iterator[None]:
        try:
            yield
        except (OSError, sqlite3.Error) as error:
            if proves_damage(error):
                raise SpoolMalformed(f"{self._path}: {in_words(error)}. {START_THE_AGENT}") from error
            if isinstance(error, (OSError, sqlite3.OperationalError)):
                raise LocalFault(f"{self._path}: {error}. Nothing was lost; it is tried again.") from error
            raise

    def _roll_back(self) -> None:
        if not self._connection.in_transaction:
            return
        try:
            self._connection.execute("rollback")
        except sqlite3.Error:
            fresh = open_database(self._path)
            self._connection.close()
            self._connection = fresh
