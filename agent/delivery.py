"""The delivery loop: seal, send one batch, call home, forget.

May be relied on
- A whole step stands in `Delivery.step` and looks for itself; nothing depends on an event having been heard.
- Every outcome of a try is sorted here into one of: acknowledged, wait, pause for credentials, set aside, say
  so to a person. None of them touches a record that is not settled.
- Times are this machine's monotonic ones; a stepping wall clock moves nothing but what is shown.
"""

import random
from datetime import UTC, datetime, timedelta

import httpx
import structlog

from agent import BUILT_ON, VERSION
from agent.board import Board, ReportedFault
from agent.clock import Clock
from agent.config import Config
from agent.errors import (
    BatchRefused,
    CredentialsRefused,
    DeliveryFault,
    LocalFault,
    ScoutAgentError,
    SpoolDamaged,
    SpoolFull,
    SpoolMalformed,
    Wait,
)
from agent.heartbeat import call_home
from agent.pace import Pace, Route
from agent.spool import Batch, SealLimits, Spool
from agent.token import TokenFile
from agent.upload import Connection, Parcel, by_bucket, by_endpoint
from wire.heartbeat import AWAITED_MAX, SETTLED, Reply, resend_number
from wire.record import format_instant

CREDENTIALS_PAUSE_S = 60.0
"""At most one try a minute with a token that was refused; a changed token file ends the pause."""

TOKEN_LOOK_S = 5.0
_PATHS = {"bucket": ("bucket",), "endpoint": ("endpoint",), "auto": ("bucket", "endpoint")}

log = structlog.get_logger()


class Delivery:
    """The delivery loop: seal, send one batch, call home, forget."""

    def __init__(
        self, config: Config, spool: Spool, client: httpx.Client, board: Board, *, clock: Clock, rng: random.Random
    ) -> None:
        self._config = config
        self._spool = spool
        self._board = board
        self._clock = clock
        self._rng = rng
        self._limits = SealLimits(config.batch.rows_max, config.batch.bytes_max, config.batch.age_max_s)
        self._token = TokenFile(config.token_file)
        self._connection = Connection(
            client,
            config.bucket_url,
            config.ingest_url,
            config.heartbeat_url,
            config.server.api_key,
            config.upload.gzip_level,
            token=lambda: self._token.read().text,
        )
        self._route = Route(
            _PATHS[config.upload.mode],
            clock,
            wait_max_s=config.upload.retry_wait_max_s,
            failover_after=config.upload.failover_after_failures,
            failback_after_s=config.upload.failback_after_s,
        )
        self._home = Pace(clock, config.upload.retry_wait_max_s)
        self._next_call_s = float("-inf")
        self._paused_until_s = float("-inf")

    def step(self) -> float:
        """Do what is due; return in how many seconds to come back."""
        self._keep_room()
        self._spool.seal(self._limits, BUILT_ON)
        self._spool.retry_set_aside()
        # Nobody wakes this loop for new sales: looking so often seals them in time.
        waits_s = [min(self._config.heartbeat.interval_s, self._limits.age_max_s)]
        seal_due_s = self._spool.seal_due_in_s(self._limits)
        if seal_due_s is not None:
            waits_s.append(seal_due_s)
        if self._is_paused():
            return min(*waits_s, TOKEN_LOOK_S)

        batch = self._spool.next_waiting()
        if batch is not None:
            if self._route.ready_in_s() <= 0.0:
                self._deliver(batch)
            if self._spool.next_waiting() is not None:
                waits_s.append(self._route.ready_in_s())
        if self._is_paused():
            return min(*waits_s, TOKEN_LOOK_S)

        now_s = self._clock.monotonic_s()
        if now_s >= self._next_call_s and self._home.ready_in_s() <= 0.0:
            self._call_home()
        waits_s.append(max(self._next_call_s - self._clock.monotonic_s(), self._home.ready_in_s()))
        return max(0.0, min(waits_s))

    def _keep_room(self) -> None:
        """Only intake must have room: delivery goes on without, for it is what brings some."""
        try:
            self._spool.keep_room()
        except SpoolFull:
            pass  # told by then, once; intake meets it by itself
        except LocalFault as fault:
            self._fault(fault, "room_not_made")

    def _deliver(self, batch: Batch) -> None:
        path = self._route.choose()
        try:
            parcel = Parcel(batch.name.key, self._spool.body(batch), batch.sha256, batch.rows)
            if path == "bucket":
                by_bucket(self._connection, parcel)
            else:
                by_endpoint(self._connection, parcel)
        except BatchRefused as fault:
            self._refused(batch, fault, path)
        except CredentialsRefused as fault:
            self._pause(fault)
        except SpoolDamaged as fault:
            # One altered record: the rest of its batch is salvaged like everything else in a damaged file.
            raise SpoolMalformed(str(fault)) from fault
        except DeliveryFault as fault:
            active = self._route.failed(path, (fault.retry_after_s if isinstance(fault, Wait) else None) or 0.0)
            self._fault(fault, "batch_not_sent", path=path, batch=batch.name.key)
            if active != path:
                log.warning("path_changed", now=active, after=path)
        else:
            self._spool.accept(batch, path)
            if self._route.succeeded(path):
                log.info("path_recovered", path=path)
            self._cleared()
            log.info("batch_uploaded", batch=batch.name.key, rows=batch.rows, path=path)

    def _refused(self, batch: Batch, fault: BatchRefused, path: str) -> None:
        """Count a refusal only while the server accepts our token: else it is not the batch's own."""
        self._fault(fault, "batch_refused", batch=batch.name.key, path=path)
        if self._call_home() and self._spool.refuse(batch, str(fault), self._config.upload.refusals_max):
            log.error("batch_set_aside", batch=batch.name.key, rows=batch.rows)
            self._route.succeeded(path)
        else:
            self._route.failed(path)

    def _call_home(self) -> bool:
        """Report, and act on the reply; True when the server answered."""
        try:
            reply, awaited = call_home(
                self._connection,
                self._spool,
                version=VERSION,
                token_expires_at=self._token.read().expires_at,
                spool_folder=self._config.spool_file.parent,
                clock=self._clock,
                rng=self._rng,
            )
        except CredentialsRefused as fault:
            self._pause(fault)
            return False
        except DeliveryFault as fault:
            self._home.failed((fault.retry_after_s if isinstance(fault, Wait) else None) or 0.0)
            self._fault(fault, "heartbeat_not_answered")
            return False
        self._home.succeeded()
        self._next_call_s = self._clock.monotonic_s() + self._config.heartbeat.interval_s
        self._heed(reply, awaited)
        return True

    def _heed(self, reply: Reply, awaited: list[Batch]) -> None:
        settled = [batch for batch in awaited if reply.batches.get(batch.awaited_key) == SETTLED]
        if settled:
            self._spool.settle(settled, reply.server_time)
            log.info("batches_settled", batches=len(settled), rows=sum(batch.rows for batch in settled))
        for batch in awaited:
            resend = resend_number(reply.batches.get(batch.awaited_key, ""))
            if resend is not None and resend > batch.name.resend:
                self._spool.send_again(batch, resend)
                log.warning("batch_asked_for_again", batch=batch.name.key, resend=resend)
        awaited_again = self._spool.enter_generation(reply.generation)
        if awaited_again:
            log.warning("generation_changed", batches_awaited_again=awaited_again)
        keep_for_days = max(self._config.spool.keep_for_days, reply.keep_for_days)
        forgotten = self._spool.forget(_days_before(reply.server_time, keep_for_days))
        if forgotten:
            log.info("rows_forgotten", rows=forgotten)
        if len(awaited) == AWAITED_MAX and settled:
            self._next_call_s = self._clock.monotonic_s()

    def _is_paused(self) -> bool:
        if self._token.changed():
            self._paused_until_s = float("-inf")
        return self._clock.monotonic_s() < self._paused_until_s

    def _pause(self, fault: CredentialsRefused) -> None:
        self._paused_until_s = self._clock.monotonic_s() + CREDENTIALS_PAUSE_S
        self._fault(fault, "credentials_refused")

    def _fault(self, fault: ScoutAgentError, event: str, **fields: object) -> None:
        log.warning(event, reason=str(fault), **fields)
        kind = fault.kind if isinstance(fault, DeliveryFault) else "local"
        next_step = fault.next_step if isinstance(fault, DeliveryFault) else "look at the message"
        self._board.note(last_fault=ReportedFault(kind, str(fault), next_step, format_instant(self._clock.now())))

    def _cleared(self) -> None:
        if self._board.facts.last_fault is not None:
            self._board.note(last_fault=None)


def _days_before(server_time: str, days: int) -> str:
    return format_instant(datetime.fromisoformat(server_time).astimezone(UTC) - timedelta(days=days))
