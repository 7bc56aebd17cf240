"""The call home: reports what this device holds, and brings back which batches are settled.

May be relied on: a reply counts only when it answers this very report. What it doesn't mention stays as it is.
Each reply also measures this boot's clock against the server's.
"""

import random
import shutil
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from agent.boot_clock import measure
from agent.clock import Clock
from agent.errors import OperatorNeeded
from agent.spool import Batch, Spool
from agent.upload import Connection, fault_of, send
from wire.heartbeat import AWAITED_MAX, BootState, NotAReply, Reply, Report
from wire.record import format_instant


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back, the report's questions beside it."""

    reply: Reply
    awaited: list[Batch]  # the batches that were asked about
    boots: tuple[BootState, ...]  # those the server heard of
    measured: BootState  # this boot, by this answer


def call_home(
    connection: Connection,
    spool: Spool,
    *,
    version: str,
    token_expires_at: datetime | None,
    spool_folder: Path,
    clock: Clock,
    rng: random.Random,
) -> Answer:
    """Report once; return the reply with what was asked. Raises DeliveryFault."""
    state = spool.state()
    awaited = spool.awaited(AWAITED_MAX)
    boots = spool.boot_states()
    report = Report(
        nonce=f"{rng.getrandbits(64):016x}",
        version=version,
        sent_at=format_instant(clock.now()),
        clock="synced" if clock.is_synced() else "unsynced",
        boot=clock.boot,
        mono_ms=clock.mono_ms(),
        epochs=spool.epoch_states(),
        awaits=tuple(batch.awaited_key for batch in awaited),
        waiting_rows=state.unsealed_rows + state.waiting_rows,
        accepted_rows=state.accepted_rows,
        set_aside_rows=state.set_aside_rows,
        spool_bytes=state.spool_bytes,
        disk_free_bytes=shutil.disk_usage(spool_folder).free,
        generation=spool.generation(),
        oldest_unsettled_at=state.oldest_unsettled_at,
        token_expires_at=format_instant(token_expires_at) if token_expires_at else None,
        boots=boots,
    )
    url = connection.heartbeat_url
    sent_mono_ms = clock.mono_ms()
    response = send(connection, url, content=report.to_json(), headers={"Content-Type": "application/json"})
    received_mono_ms = clock.mono_ms()
    if response.status_code != 200:
        raise fault_of(response, url)
    try:
        reply = Reply.parse(response.content, report.nonce)
    except NotAReply as error:
        raise OperatorNeeded(f"{url} answered 200, but {error}") from None
    spool.note_losses_heard(report.epochs, reply.server_time)
    measured = measure(clock.boot, reply.server_time, sent_mono_ms, received_mono_ms)
    return Answer(reply, awaited, boots, measured)
