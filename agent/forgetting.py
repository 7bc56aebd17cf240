"""How records leave the spool, and how room is made for new ones.

May be relied on
- Only settled batches are forgotten: when they were kept for long enough, or earlier where room is short, the oldest
  first. Nothing else ever leaves to make room: then intake is refused.
- What is forgotten is counted in its epoch, in the same transaction, so that a hole is never taken for it.
"""

from contextlib import suppress

from agent.connection import SEQS_PER_EPOCH, SQL, SpoolConnection
from agent.errors import LocalFault, SpoolFull
from agent.schema import BUSY_TIMEOUT_S
from agent.space import Shortage

FORGET_BATCHES = 100  # in one commit: seldom and in ranges wears the card least
EVER = "9999"  # later than any moment that can be noted
SHRINK_WAIT_MS = 500


class Forgetting(SpoolConnection):
    """A connection that can forget what is settled."""

    def forget(self, settled_before: str) -> int:
        """Remove what was settled before that moment of the server's time, some batches at once; return rows."""
        if self._space is None or self._is_ample():
            return self._forget(settled_before, FORGET_BATCHES)
        forgotten = self._forget(settled_before, 1)
        if forgotten:
            self._shrink()
        return forgotten

    def keep_room(self) -> None:
        """Keep the reserve, and make room for intake where it is short. Raises LocalFault; SpoolFull for no room."""
        if self._space is None:
            return
        with self._faults():
            self._space.keep_reserve()  # before anything is written: on a full disk only this gives it room
        if self._space.is_short and not self._is_ample():
            self._shrink()
        with self._faults():
            self._space.notice_ampleness()
        self._need_room(0)

    def _need_room(self, wanted: int) -> None:
        """Make room where it is short. Raises SpoolFull when there still is none."""
        if self._space is None:
            return
        if self._refusal(wanted) is not None:
            # On a disk that is full to its last block not even that can be written: the refusal below says so.
            with suppress(LocalFault):
                self._make_room(wanted)
        reason = self._refusal(wanted)
        if reason is not None:
            self._space.note(Shortage.REFUSING, reason)
            raise SpoolFull(f"{self._path}: {reason}.")
        if wanted and self._space.is_refusing:
            self._space.note(Shortage.FORGETTING, "there is a little room again")

    def _make_room(self, wanted: int) -> None:
        """Give back what is free, then forget what is settled, for as long as room is short."""
        self._shrink()
        while (reason := self._refusal(wanted)) is not None:
            # One batch in one commit: the WAL holds every page that is freed, and there is hardly room for it.
            if not self._forget(EVER, 1):
                return
            self._note_forgetting(reason)
            self._shrink()

    def _note_forgetting(self, reason: str) -> None:
        assert self._space
        self._space.note(Shortage.FORGETTING, reason)

    def _refusal(self, wanted: int) -> str | None:
        assert self._space
        with self._faults():
            return self._space.room().refusal(wanted)

    def _is_ample(self) -> bool:
        assert self._space
        with self._faults():
            return self._space.room().is_ample

    def _shrink(self) -> None:
        """Give free pages and the WAL back to the disk, unless another connection is in the way just now."""
        with self._faults():
            self._connection.execute(f"pragma busy_timeout = {SHRINK_WAIT_MS}")
            try:
                # `execute` steps once, and each step frees one page.
                self._connection.executescript("pragma incremental_vacuum")
                self._connection.execute("pragma wal_checkpoint(truncate)").fetchall()
            finally:
                self._connection.execute(f"pragma busy_timeout = {BUSY_TIMEOUT_S * 1000:.0f}")

    def _forget(self, settled_before: str, batches_max: int) -> int:
        with self._transaction():
            rows = self._connection.execute(
                SQL["forgettable"], {"before": settled_before, "limit": batches_max}
            ).fetchall()
            forgotten = 0
            for row in rows:
                base = row["epoch_number"] * SEQS_PER_EPOCH
                deleted = self._connection.execute(
                    SQL["forget_records"],
                    {"first": base + row["first_seq"], "last": base + row["last_seq"]},
                )
                self._connection.execute(SQL["forget_batch"], {"number": row["number"]})
                self._connection.execute(
                    SQL["count_forgotten"],
                    {"number": row["epoch_number"], "rows": row["last_seq"] - row["first_seq"] + 1},
                )
                forgotten += deleted.rowcount
            if rows:
                self._connection.execute(SQL["forget_epochs"], {"boot": self._clock.boot, "before": settled_before})
                self._connection.execute(SQL["forget_lost"])
        return forgotten
