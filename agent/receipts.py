"""What a reply from home changes in the spool: receipts, copies asked for, another life of the database.

May be relied on: only what the reply names changes, and nothing unsettled is forgotten.
"""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import structlog

from agent.spool import Batch, Spool
from wire.heartbeat import AWAITED_MAX, SETTLED, Reply, resend_number
from wire.record import format_instant

log = structlog.get_logger()


def heed(spool: Spool, reply: Reply, awaited: Sequence[Batch], keep_for_days: int) -> bool:
    """Act on the reply about these batches; True when it pays to ask again at once."""
    settled = [batch for batch in awaited if reply.batches.get(batch.awaited_key) == SETTLED]
    if settled:
        spool.settle(settled, reply.server_time)
        log.info("batches_settled", batches=len(settled), rows=sum(batch.rows for batch in settled))
    for batch in awaited:
        resend = resend_number(reply.batches.get(batch.awaited_key, ""))
        if resend is None or resend <= batch.name.resend:
            continue
        if spool.send_again(batch, resend):
            log.warning("batch_asked_for_again", batch=batch.name.key, resend=resend)
    awaited_again = spool.enter_generation(reply.generation)
    if awaited_again:
        log.warning("generation_changed", batches_awaited_again=awaited_again)
    forgotten = spool.forget(_days_before(reply.server_time, max(keep_for_days, reply.keep_for_days)))
    if forgotten:
        log.info("rows_forgotten", rows=forgotten)
    return len(awaited) == AWAITED_MAX and bool(settled)


def _days_before(server_time: str, days: int) -> str:
    return format_instant(datetime.fromisoformat(server_time).astimezone(UTC) - timedelta(days=days))
