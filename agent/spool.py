"""The spool: owner of every record from intake until its batch is settled.

May be relied on
- `append` returns only when the records are on storage that honours flush (WAL, synchronous=FULL), together
  with the note of the file they came from. A kill or power cut before that leaves nothing of them.
- Seqs of an epoch are 1, 2, 3 … without holes, and no (epoch, seq) is issued twice: a new epoch begins at the
  first intake after every boot, so that a card that lost its last writes can't repeat one.
- A sealed batch never changes. Its hash is stored with it, and `body` compares.
- Records leave only by `forget`, and only when settled.

    append ─▶ record (unsealed) ─seal▶ waiting ─accept▶ accepted ─settle▶ settled ─forget▶ gone
                                          ▲ │                │
                                          │ └─set_aside▶ set_aside ─retry▶ waiting
                                          └────── resend ────┘

What a cut at any moment leaves: before a commit, the state before; after it, the state after. Every arrow
above is one transaction. Opened twice at once (the daemon, `scout-agent add` or `export`) the writers take turns.
An export moves nothing along these arrows; it is noted, and what was exported may be settled from any state.
"""

import random
import sqlite3
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path

from agent.boot_clock import is_better
from agent.checksum import line_checksum
from agent.clock import Clock
from agent.connection import SEQS_PER_EPOCH, SQL
from agent.errors import LocalFault, SpoolDamaged, SpoolMalformed
from agent.forgetting import Forgetting
from agent.holdings import SpoolState, state_of, states_of
from agent.intake import Note, TailMark
from agent.record_id import RecordIds
from agent.space import Space, wanted_bytes
from wire.batch import BatchName, NotABatchName, content_hash
from wire.heartbeat import BOOTS_MAX, BootState, EpochState
from wire.record import Record, format_instant, to_line

DAY_MS = 24 * 3600 * 1000


@dataclass(frozen=True, slots=True)
class Batch:
    """A sealed run of records, ready to travel."""

    number: int
    name: BatchName
    sha256: str
    bytes: int
    refused_by: str | None = None
    exported: bool = False  # it lies on a stick, so the server may have it without our sending

    @property
    def rows(self) -> int:
        """How many records it carries."""
        return self.name.rows

    @property
    def awaited_key(self) -> str:
        """The name under which its receipt is awaited, whichever copy of it arrives."""
        return self.name.again(0).key


@dataclass(frozen=True, slots=True)
class SealLimits:
    """When a run of records becomes a batch: whichever is reached first."""

    rows_max: int
    bytes_max: int
    age_max_s: float


class Spool(Forgetting):
    """One connection to the spool. Each thread and each process opens its own."""

    def __init__(
        self, path: Path, device_id: str, *, clock: Clock, rng: random.Random, space: Space | None = None
    ) -> None:
        super().__init__(path, device_id, clock=clock, rng=rng, space=space)
        self._ids = RecordIds(rng)

    # Intake

    def append(self, payloads: Sequence[bytes], notes: Sequence[Note] = ()) -> int:
        """Store payloads as records, with their source's notes of where they came from; return how many.

        Each payload is one line of valid JSON (wire.record.parse_payload accepted it). On return all of it is
        durable; when LocalFault is raised, none of it is there. SpoolFull says that there is no room, after what is
        settled was forgotten early to make some.
        """
        if payloads:
            self._need_room(wanted_bytes(sum(map(len, payloads)), len(payloads)))
        with self._transaction():
            if payloads:
                self._append_records(payloads)
            for note in notes:
                self._connection.execute(SQL[note.statement], asdict(note))
        return len(payloads)

    def bytes_taken(self, name: bytes) -> int | None:
        """How much of a file in processing/ is in the spool already; None when nothing was noted."""
        row = self._connection.execute(SQL["bytes_taken"], {"name": name}).fetchone()
        return row[0] if row else None

    def taken_files(self) -> list[bytes]:
        """The files whose notes are still kept."""
        return [name for (name,) in self._connection.execute(SQL["taken_files"])]

    def release_files(self, names: Sequence[bytes]) -> None:
        """Drop the notes of files that are no longer in processing/."""
        with self._transaction():
            self._connection.executemany(SQL["release_file"], [(name,) for name in names])

    def posts(self) -> dict[str, str]:
        """The Idempotency-Keys of posts, each with the hash of what came under it."""
        return dict(self._connection.execute(SQL["posts"]).fetchall())

    def forget_posts(self, kept_max: int, before: str | None) -> int:
        """Forget the oldest Idempotency-Keys: beyond a number, or noted before a moment; return how many."""
        with self._transaction():
            return self._connection.execute(SQL["forget_posts"], {"kept_max": kept_max, "before": before}).rowcount

    def tail_marks(self) -> list[TailMark]:
        """How far each content that the tail source follows is in the spool, in the order of their numbers."""
        return [
            TailMark(**dict(row) | {"skips_line": bool(row["skips_line"])})
            for row in self._connection.execute(SQL["tail_marks"])
        ]

    # Delivery

    def seal(self, limits: SealLimits, built_on: datetime) -> int:
        """Seal every run that is due; return how many batches were made."""
        sealed = 0
        while self._seal_one(limits, built_on):
            sealed += 1
        return sealed

    def seal_due_in_s(self, limits: SealLimits) -> float | None:
        """Seconds until the youngest run becomes due by age; None when nothing is unsealed."""
        row = self._connection.execute(SQL["unsealed"]).fetchone()
        if row is None:
            return None
        return max(0.0, limits.age_max_s - self._age_s(row["boot"], row["unsealed_since_mono_ms"]))

    def next_waiting(self, after: int = 0) -> Batch | None:
        """The oldest batch that waits to be sent, of those behind the batch numbered `after`."""
        row = self._connection.execute(SQL["next_waiting"], {"after": after}).fetchone()
        return _batch(row) if row else None

    def body(self, batch: Batch) -> bytes:
        """A batch's uncompressed JSONL, byte for byte as sealed; raise SpoolDamaged when it isn't there."""
        jsonl = self._jsonl(self._epoch_number(batch), batch.name.first_seq, batch.name.last_seq)
        if content_hash(jsonl) != batch.sha256:
            raise SpoolDamaged(
                f"{self._path}: batch {batch.name.key} no longer matches its checksum. Nothing is removed; the agent, "
                "or `scout-agent spool repair`, salvages what can be read."
            )
        return jsonl

    def accept(self, batch: Batch, by: str) -> None:
        """Note that the bucket or the endpoint took the bytes. The batch stays until it is settled."""
        self._mark("accept", batch, now=format_instant(self._clock.now()), by=by)

    def refuse(self, batch: Batch, reason: str, refusals_max: int, by: str | None = None) -> bool:
        """Count a refusal of the batch itself, by a path; True when that many set it aside."""
        with self._transaction():
            self._connection.execute(SQL["count_refusal"], {"number": batch.number, "reason": reason, "by": by})
            changed = self._connection.execute(
                SQL["set_aside"],
                {
                    "number": batch.number,
                    "refusals_max": refusals_max,
                    "now": format_instant(self._clock.now()),
                    "mono_ms": self._clock.mono_ms(),
                    "boot": self._clock.boot,
                },
            )
        return changed.rowcount == 1

    def retry_set_aside(self) -> int:
        """Let batches that were set aside a day or a boot ago wait again; return how many."""
        parameters = {"before_mono_ms": self._clock.mono_ms() - DAY_MS, "boot": self._clock.boot}
        if not self._connection.execute(SQL["set_aside_due"], parameters).fetchone()[0]:
            return 0
        with self._transaction():
            return self._connection.execute(SQL["retry_set_aside"], parameters).rowcount

    def replay_set_aside(self, keys: Sequence[str] = ()) -> int:
        """Let batches that were set aside wait again at once, these or all; return how many."""
        rows = self._connection.execute(SQL["list_set_aside"]).fetchall()
        chosen = [row["number"] for row in rows if not keys or row["key"] in keys]
        if not chosen:
            return 0
        with self._transaction():
            self._connection.executemany(SQL["replay_set_aside"], [{"number": number} for number in chosen])
        return len(chosen)

    def newest_waiting(self) -> int:
        """The number of the youngest batch that waits; 0 when none does."""
        (number,) = self._connection.execute(SQL["newest_waiting"]).fetchone()
        return int(number)

    # Settling

    def awaited(self, limit: int) -> list[Batch]:
        """Batches that left this device, by a path or on a stick, without a receipt; accepted ones first."""
        return [_batch(row) for row in self._connection.execute(SQL["awaited"], {"limit": limit})]

    def settle(self, batches: Sequence[Batch], server_time: str) -> None:
        """Note that the server's ledger covers these.

        `server_time` is the server's: keeping them for some days must not hang on this device's clock.
        """
        with self._transaction():
            for batch in batches:
                self._connection.execute(SQL["settle"], {"number": batch.number, "now": server_time})

    def send_again(self, batch: Batch, resend: int) -> bool:
        """Let an accepted batch wait again under the copy name that the server asked for.

        False when it was never accepted: then its first copy is still to be sent.
        """
        with self._transaction():
            changed = self._connection.execute(SQL["send_again"], {"number": batch.number, "resend": resend})
        return changed.rowcount == 1

    def generation(self) -> str | None:
        """Which life of the server's database was heard last."""
        row = self._connection.execute(SQL["generation"]).fetchone()
        return row[0] if row else None

    def enter_generation(self, generation: str) -> int:
        """Note a new life of the server's database; batches still kept are awaited again. Return how many."""
        known = self.generation()
        if known == generation:
            return 0
        with self._transaction():
            self._connection.execute(SQL["note_generation"], {"generation": generation})
            self._connection.execute(SQL["tell_boots_again"])
            if known is None:
                return 0
            return self._connection.execute(SQL["await_again"]).rowcount

    # Export

    def kept(self, *, settled: bool) -> list[Batch]:
        """Every sealed batch that the server hasn't settled, or with `settled` all that are still here, by age."""
        return [_batch(row) for row in self._connection.execute(SQL["kept"], {"settled": settled})]

    def keeps(self, batch: Batch) -> bool:
        """Whether this batch is still here."""
        parameters = {"number": batch.number, "key": batch.awaited_key}
        return bool(self._connection.execute(SQL["keeps"], parameters).fetchone()[0])

    def note_exported(self, batches: Sequence[Batch]) -> None:
        """Note that these lie on a stick, so that their receipts are awaited."""
        now = format_instant(self._clock.now())
        rows = [{"number": batch.number, "key": batch.awaited_key, "now": now} for batch in batches]
        with self._transaction():
            self._connection.executemany(SQL["note_exported"], rows)

    # The boots' clocks

    def note_boot(self, measured: BootState) -> None:
        """Keep the best measurement of a boot; on its first one, boots that hold nothing any more are dropped."""
        row = self._connection.execute(SQL["known_boot"], {"boot": measured.boot}).fetchone()
        if not is_better(measured, BootState(**row) if row else None):
            return
        with self._transaction():
            self._connection.execute(SQL["note_boot"], asdict(measured))
            if row is None:
                self._connection.execute(SQL["forget_boots"], {"boot": measured.boot})

    def boot_states(self) -> tuple[BootState, ...]:
        """Measured boots that the server hasn't heard of, or whose records it hasn't settled; BOOTS_MAX at most."""
        rows = self._connection.execute(SQL["boot_states"], {"limit": BOOTS_MAX})
        return tuple(BootState(**row) for row in rows)

    def note_heard(self, boots: Sequence[BootState]) -> None:
        """Note that a report which named these was answered."""
        if not self._connection.execute(SQL["any_unheard"]).fetchone()[0]:
            return
        with self._transaction():
            self._connection.executemany(SQL["note_heard"], [asdict(boot) for boot in boots])

    # Seeing

    def state(self) -> SpoolState:
        """Count what the spool holds."""
        return state_of(self._connection, self._path)

    def backlog(self) -> tuple[int, int]:
        """Records that are not sent, and those that await their receipt. Cheap to ask, and writes nothing."""
        unsent_rows, accepted_rows = self._connection.execute(SQL["backlog"]).fetchone()
        return unsent_rows, accepted_rows

    def epoch_states(self) -> tuple[EpochState, ...]:
        """Each epoch's head and its runs that are not settled, as the heartbeat reports them."""
        with self._reading():
            return states_of(self._connection)

    def note_losses_heard(self, reported: Sequence[EpochState], server_time: str) -> None:
        """The server answered a report: what it said to be lost is heard, and need not be said for ever."""
        epochs = [state.epoch for state in reported if state.lost]
        if epochs:
            with self._transaction():
                self._connection.executemany(
                    SQL["note_losses_heard"], [{"epoch": epoch, "now": server_time} for epoch in epochs]
                )

    # Helpers

    def _append_records(self, payloads: Sequence[bytes]) -> None:
        now, mono_ms = self._clock.now(), self._clock.mono_ms()
        captured_at, clock = format_instant(now), "synced" if self._clock.is_synced() else "unsynced"
        number, epoch, head = self._current_epoch(captured_at)
        ids = self._ids.mint(int(now.timestamp() * 1000), len(payloads))
        place = number * SEQS_PER_EPOCH
        rows, line_bytes = [], 0
        for seq, (payload, record_id) in enumerate(zip(payloads, ids, strict=True), head + 1):
            line = to_line(Record(seq, record_id, captured_at, clock, self._clock.boot, mono_ms, payload))
            line_bytes += len(line) + 1
            rows.append((place + seq, captured_at, line.decode(), line_checksum(epoch, line)))
        self._connection.executemany(SQL["insert_record"], rows)
        self._connection.execute(
            SQL["raise_head"],
            {"number": number, "rows": len(rows), "bytes": line_bytes, "mono_ms": mono_ms},
        )

    def _seal_one(self, limits: SealLimits, built_on: datetime) -> bool:
        if self._due_run(limits) is None:
            return False
        with self._transaction():
            row = self._due_run(limits)
            if row is None:
                return False  # another process (`scout-agent export`) sealed it meanwhile
            number, first_seq = row["number"], row["sealed_to"] + 1
            (last_seq,) = self._connection.execute(
                SQL["run_end"],
                {
                    "first": number * SEQS_PER_EPOCH + first_seq,
                    "past": (number + 1) * SEQS_PER_EPOCH,
                    "rows_max": limits.rows_max,
                    "bytes_max": limits.bytes_max,
                },
            ).fetchone()
            if last_seq is None:
                raise SpoolMalformed(f"{self._path}: records of epoch {row['epoch']} are missing")
            last_seq -= number * SEQS_PER_EPOCH
            jsonl = self._proved_jsonl(number, row["epoch"], first_seq, last_seq)
            self._store_batch(number, self._name(row["epoch"], first_seq, last_seq, jsonl, built_on), jsonl)
            raised = self._connection.execute(
                SQL["raise_sealed"],
                {
                    "number": number,
                    "first_seq": first_seq,
                    "last_seq": last_seq,
                    "bytes": len(jsonl),
                    "mono_ms": self._clock.mono_ms(),
                },
            )
            if raised.rowcount != 1:
                raise LocalFault(f"{self._path}: two processes seal at once. Only one daemon may run.")
        return True

    def _due_run(self, limits: SealLimits) -> sqlite3.Row | None:
        """The oldest run that no batch covers, if it should become one now."""
        row: sqlite3.Row | None = self._connection.execute(SQL["unsealed"]).fetchone()
        is_due = row is not None and (
            row["boot"] != self._clock.boot  # nothing will be added to an epoch of an earlier boot
            or row["head"] - row["sealed_to"] >= limits.rows_max
            or row["unsealed_bytes"] >= limits.bytes_max
            or self._age_s(row["boot"], row["unsealed_since_mono_ms"]) >= limits.age_max_s
        )
        return row if is_due else None

    def _current_epoch(self, opened_at: str) -> tuple[int, str, int]:
        """Number, id and head of this boot's epoch, begun now if this is the boot's first intake."""
        row = self._connection.execute(SQL["newest_epoch"]).fetchone()
        if row is None or row["boot"] != self._clock.boot:
            epoch = f"{self._rng.getrandbits(64):016x}"
            self._connection.execute(SQL["begin_epoch"], {"epoch": epoch, "boot": self._clock.boot, "now": opened_at})
            row = self._connection.execute(SQL["newest_epoch"]).fetchone()
        return row["number"], row["epoch"], row["head"]

    def _epoch_number(self, batch: Batch) -> int:
        row = self._connection.execute(SQL["epoch_number"], {"epoch": batch.name.epoch}).fetchone()
        return int(row[0]) if row else 0  # no record lies below 0: what was forgotten meanwhile has no content

    def _jsonl(self, epoch_number: int, first_seq: int, last_seq: int) -> bytes:
        base = epoch_number * SEQS_PER_EPOCH
        (text,) = self._connection.execute(
            SQL["jsonl"], {"first": base + first_seq, "last": base + last_seq}
        ).fetchone()
        return (text or b"") + b"\n"

    def _proved_jsonl(self, epoch_number: int, epoch: str, first_seq: int, last_seq: int) -> bytes:
        """A run about to be sealed. A batch's hash protects it from then on, so what it covers must be right."""
        base = epoch_number * SEQS_PER_EPOCH
        run = {"epoch": epoch, "first": base + first_seq, "last": base + last_seq}
        rows, altered = self._connection.execute(SQL["proof"], run).fetchone()
        if altered or rows != last_seq - first_seq + 1:
            raise SpoolMalformed(f"{self._path}: records of epoch {epoch} are missing or altered")
        return self._jsonl(epoch_number, first_seq, last_seq)

    def _age_s(self, boot: str, since_mono_ms: int) -> float:
        """Age by the clock that can't step; what an earlier boot left is as old as it gets."""
        if boot != self._clock.boot:
            return float("inf")
        return (self._clock.mono_ms() - since_mono_ms) / 1000

    def _mark(self, statement: str, batch: Batch, **parameters: object) -> None:
        with self._transaction():
            self._connection.execute(SQL[statement], {"number": batch.number, **parameters})


def _batch(row: sqlite3.Row) -> Batch:
    try:
        name = BatchName.parse(row["key"])
    except NotABatchName as error:
        raise SpoolMalformed(f"batch {row['number']} of the spool has a name that is {error}") from error
    return Batch(
        row["number"],
        name.again(row["resend"]),
        row["sha256"],
        row["bytes"],
        row["refused_by"],
        bool(row["exported"]),
    )
