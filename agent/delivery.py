"""The delivery loop: obey orders, seal, send one batch, call home, forget.

May be relied on
- A whole step stands in `Delivery.step` and looks for itself; nothing depends on an event having been heard.
- Every outcome of a try is sorted here into one of: acknowledged, wait, pause for credentials, set aside, say
  so to a person. None of them touches a record that is not settled.
- The oldest batch goes first. No answer to a single batch holds up the others for ever: one that troubles the
  server lets the next one by, and when that is taken where it was not, it was refused for itself.
- Times are this machine's monotonic ones; a stepping wall clock moves nothing but quiet hours and what is shown.
"""

import random
from collections.abc import Callable

import httpx
import structlog

from agent import BUILT_ON, VERSION
from agent.board import Board, ReportedFault
from agent.boot_clock import offset_s
from agent.clock import Clock
from agent.config import Config
from agent.counters import BATCHES_SENT, FAULTS, HEARTBEAT_ANSWERED, TEXT_BYTES_SENT
from agent.credentials import Credentials
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
from agent.heartbeat import Answer, call_home
from agent.holds import Holds
from agent.orders import Orders, PauseOrder, ReplayOrder
from agent.pace import Pace, Route
from agent.receipts import heed
from agent.renewal import Renewal
from agent.renewing import renew_in_child
from agent.sending import Sending
from agent.spool import Batch, SealLimits, Spool
from agent.suspicion import Suspect, Suspicion
from agent.transport import Flow
from agent.upload import Connection, Parcel, by_bucket, by_endpoint
from wire.record import format_instant

TOKEN_LOOK_S = 5.0

TROUBLED_AFTER = 10
"""Server errors in a row after which a batch is suspected of causing them."""

OFFSET_STEP_S = 0.5
"""The least change of the clock's offset that is shown."""

_PATHS = {"bucket": ("bucket",), "endpoint": ("endpoint",), "auto": ("bucket", "endpoint")}
_SENDERS: dict[str, Callable[[Connection, Parcel], object]] = {"bucket": by_bucket, "endpoint": by_endpoint}

log = structlog.get_logger()


class Delivery:
    """The delivery loop for one config. Only what is in the spool and beside it outlives this."""

    def __init__(
        self,
        config: Config,
        spool: Spool,
        client: httpx.Client,
        board: Board,
        *,
        clock: Clock,
        rng: random.Random,
        moved: Callable[[int], None] = lambda _bytes: None,
        renew: Callable[[Config], None] = renew_in_child,
    ) -> None:
        self._config = config
        self._spool = spool
        self._board = board
        self._clock = clock
        self._rng = rng
        self._limits = SealLimits(config.batch.rows_max, config.batch.bytes_max, config.batch.age_max_s)
        self._credentials = Credentials(config.token_file, config.device.id, clock)
        self._renewal = Renewal(config, self._credentials, clock, renew)
        self._connection = Connection.of(
            config,
            client,
            token=lambda: self._credentials.token().text,
            flow=Flow(config.upload.rate_kbit_max, moved, clock),
        )
        self._route = Route(
            _PATHS[config.upload.mode],
            clock,
            wait_max_s=config.upload.retry_wait_max_s,
            failover_after=config.upload.failover_after_failures,
            failback_after_s=config.upload.failback_after_s,
        )
        self._home = Pace(clock, config.upload.retry_wait_max_s)
        self._refusals = Pace(clock, config.upload.retry_wait_max_s)
        self._next_call_s = float("-inf")
        self._orders = Orders(config.spool_file.parent)
        self._orders.prepare()
        self._holds = Holds(config, board, clock)
        self._sending = Sending(self._orders, spool, self._route, board)
        self._suspicion = Suspicion(spool, self._route)
        board.note(path=self._route.active)

    def close(self) -> None:
        """Let go of the network. The spool stays open."""
        self._connection.client.close()

    def step(self) -> float:
        """Do what is due; return in how many seconds to come back."""
        self._obey()
        self._keep_room()
        self._spool.seal(self._limits, BUILT_ON)
        self._spool.retry_set_aside()
        # Nobody wakes this loop for new sales: looking so often seals them in time.
        waits_s = [min(self._config.heartbeat.interval_s, self._limits.age_max_s)]
        seal_due_s = self._spool.seal_due_in_s(self._limits)
        if seal_due_s is not None:
            waits_s.append(seal_due_s)

        self._keep_credentials()
        if self._credentials.are_paused():
            self._sending.end("the token was refused")
            return min(*waits_s, TOKEN_LOOK_S)

        hold = self._holds.look()
        if hold.is_paused:
            self._sending.end("uploads are paused: scout-agent resume")
        is_held = hold.is_paused or (hold.is_quiet and not self._sending.is_on)
        batch = None if is_held else self._suspicion.next_batch()
        if batch is not None and batch.exported and self._call_is_due():
            batch = self._after_asking()
        if batch is not None:
            path = self._suspicion.path_for(batch)
            wait_s = self._ready_in_s(batch, path)
            if wait_s <= 0.0 and self._is_token_good():
                self._deliver(batch, path)
            waits_s.append(wait_s)
        if self._credentials.are_paused():
            return min(*waits_s, TOKEN_LOOK_S)

        if self._call_is_due() and self._home.ready_in_s() <= 0.0:
            self._call_home()
        waits_s.append(max(self._next_call_s - self._clock.monotonic_s(), self._home.ready_in_s()))
        return max(0.0, min(waits_s))

    def _obey(self) -> None:
        """Do what a technician asked for."""
        with self._orders.taken(PauseOrder) as pause:
            if pause is not None:
                self._holds.pause(pause.for_s)
                log.info("pause_ordered", for_s=pause.for_s)
        with self._orders.taken(ReplayOrder) as replay:
            if replay is not None:
                log.info("replay_ordered", batches=self._spool.replay_set_aside(replay.keys))
        everything = SealLimits(self._limits.rows_max, self._limits.bytes_max, age_max_s=0.0)
        if self._sending.look(lambda: self._spool.seal(everything, BUILT_ON)):
            self._refusals.succeeded()  # the next try is now, though not those after it

    def _keep_room(self) -> None:
        """Only intake must have room: delivery goes on without, for it is what brings some."""
        try:
            self._spool.keep_room()
        except SpoolFull:
            pass  # told by then, once; intake meets it by itself
        except LocalFault as fault:
            self._fault(fault, "room_not_made")

    # One try

    def _after_asking(self) -> Batch | None:
        """What to send once the server was asked which of the batches on a stick it has already."""
        if self._home.ready_in_s() > 0.0:
            return None
        answered = self._call_home()
        if self._credentials.are_paused() or (answered and self._call_is_due()):
            return None  # there is more to ask about than one report may name
        return self._suspicion.next_batch()  # also without an answer: the bucket may be all there is

    def _ready_in_s(self, batch: Batch, path: str) -> float:
        waits_s = [self._route.ready_in_s(path)]
        if batch.refused_by:
            waits_s.append(self._refusals.ready_in_s())
        if self._credentials.have_expired():
            waits_s.append(self._home.ready_in_s())
        return max(waits_s)

    def _is_token_good(self) -> bool:
        """Ask at home first when the token seems to have expired: this clock may be wrong."""
        return self._credentials.have_expired() is None or self._is_welcome()

    def _deliver(self, batch: Batch, path: str) -> None:
        try:
            parcel = Parcel(batch.name.key, self._spool.body(batch), batch.sha256, batch.rows)
            _SENDERS[path](self._connection, parcel)
        except BatchRefused as fault:
            self._fault(fault, "batch_refused", batch=batch.name.key, path=path)
            self._refused(batch, str(fault), path)
        except CredentialsRefused as fault:
            self._lock_out(fault)
            self._failed(batch, fault, path)
        except SpoolDamaged as fault:
            # One altered record: the rest of its batch is salvaged like everything else in a damaged file.
            raise SpoolMalformed(str(fault)) from fault
        except DeliveryFault as fault:
            self._fault(fault, "batch_not_sent", path=path, batch=batch.name.key)
            self._failed(batch, fault, path)
        else:
            self._accepted(batch, path)

    def _accepted(self, batch: Batch, path: str) -> None:
        self._spool.accept(batch, path)
        if batch.exported:
            self._home.succeeded()  # the way is open: ask about the next one at once
        self._board.counters.add(BATCHES_SENT, path=path)
        self._board.counters.add(TEXT_BYTES_SENT, batch.bytes, path=path)
        # A batch that only avoids the path that refused it says nothing about the others' way.
        if batch.refused_by in (None, path) and self._route.succeeded(path):
            log.info("path_recovered", path=path)
        self._board.note(last_fault=None, path=self._route.active)
        log.info("batch_uploaded", batch=batch.name.key, rows=batch.rows, path=path)
        refused = self._suspicion.proved_by(batch, path)
        if refused is not None:
            self._refused(refused.batch, refused.reason, path)
        else:
            self._refusals.succeeded()

    def _refused(self, batch: Batch, reason: str, path: str) -> None:
        """Count a refusal only while the server accepts our token: else it is not the batch's own."""
        if not self._is_welcome():
            self._try_failed(path)
        elif self._spool.refuse(batch, reason, self._config.upload.refusals_max, by=path):
            log.error("batch_set_aside", batch=batch.name.key, rows=batch.rows, reason=reason)
            self._refusals.succeeded()
        else:
            self._refusals.failed()

    def _failed(self, batch: Batch, fault: DeliveryFault, path: str) -> None:
        """Wait before the next try; let another batch by where this one may be the reason."""
        self._suspicion.end()
        is_usual_path = path == self._route.active
        if not isinstance(fault, CredentialsRefused) or not is_usual_path:
            self._try_failed(path, (fault.retry_after_s if isinstance(fault, Wait) else None) or 0.0)
        if is_usual_path and self._may_be_its_own(fault, path):
            self._suspicion.falls_on(Suspect(batch, path, str(fault)))

    def _may_be_its_own(self, fault: DeliveryFault, path: str) -> bool:
        """Whether the batch, rather than the way to the server, may be what is refused."""
        if isinstance(fault, CredentialsRefused):
            return True  # the witness shows it; until then nothing is asked twice a minute
        if isinstance(fault, Wait):
            is_asked_to_wait = fault.retry_after_s is not None or not fault.answered
            if is_asked_to_wait or self._route.failures(path) < TROUBLED_AFTER:
                return False
        return self._is_welcome()

    def _try_failed(self, path: str, at_least_s: float = 0.0) -> None:
        self._route.failed(path, at_least_s)
        self._sending.failed(path)
        if self._route.active != self._board.facts.path:
            log.warning("path_changed", now=self._route.active, after=path)
        self._board.note(path=self._route.active)

    # The call home

    def _is_welcome(self) -> bool:
        """Whether the server, asked now, accepts our token."""
        return self._home.ready_in_s() <= 0.0 and self._call_home()

    def _call_home(self) -> bool:
        """Report, and act on the reply; True when the server answered."""
        try:
            answer = call_home(
                self._connection,
                self._spool,
                version=VERSION,
                token_expires_at=self._credentials.token().expires_at,
                spool_folder=self._config.spool_file.parent,
                clock=self._clock,
                rng=self._rng,
            )
        except CredentialsRefused as fault:
            self._lock_out(fault)
            return False
        except DeliveryFault as fault:
            self._home.failed((fault.retry_after_s if isinstance(fault, Wait) else None) or 0.0)
            self._fault(fault, "heartbeat_not_answered")
            return False
        self._home.succeeded()
        self._board.counters.happened(HEARTBEAT_ANSWERED, self._clock.monotonic_s())
        self._credentials.accepted()
        if answer.reply.renew_token:
            self._renewal.ask()
        if self._board.facts.last_fault is not None and self._spool.next_waiting() is None:
            self._board.note(last_fault=None)
        has_more = heed(self._spool, answer.reply, answer.awaited, self._config.spool.keep_for_days)
        self._heed_clock(answer)
        self._next_call_s = self._clock.monotonic_s() + (0.0 if has_more else self._config.heartbeat.interval_s)
        return True

    def _call_is_due(self) -> bool:
        return self._clock.monotonic_s() >= self._next_call_s

    def _heed_clock(self, answer: Answer) -> None:
        """Keep what the answer tells of this boot's clock, for the times of its sales."""
        self._spool.note_heard(answer.boots)
        self._spool.note_boot(answer.measured)
        offset = offset_s(answer.measured, self._clock.now(), self._clock.mono_ms())
        shown = self._board.facts.clock_offset_s
        # The board is a file: a round trip's length is not worth writing one.
        if shown is None or abs(offset - shown) >= OFFSET_STEP_S:
            self._board.note(clock_offset_s=round(offset, 1))

    # The next token

    def _keep_credentials(self) -> None:
        """Renew the token when that is due, and take in another one, whoever put it there."""
        if self._renewal.is_due():
            self._renew()
        if self._credentials.have_changed():
            # What the old token was refused for may be welcome with this one.
            self._suspicion.end()
            self._spool.replay_set_aside()

    def _renew(self) -> None:
        """Ask for another token. One that still counts goes on counting, whatever comes of it."""
        try:
            self._renewal.renew()
        except (DeliveryFault, LocalFault) as fault:
            log.warning("token_not_renewed", reason=str(fault))
            self._board.counters.add(FAULTS, kind=_kind(fault))
            self._board.note(renewal_fault=self._reported(fault))
        else:
            log.info("token_renewed")
            self._board.note(renewal_fault=None)

    # What is told

    def _lock_out(self, fault: CredentialsRefused) -> None:
        """Pause, and say since when the token seems to be over where that is the reason."""
        expired = self._credentials.have_expired()
        if expired is not None:
            fault = CredentialsRefused(
                f"{fault}; by this device's clock the token expired at {format_instant(expired)}"
            )
        self._credentials.refused()
        self._fault(fault, "credentials_refused")

    def _fault(self, fault: ScoutAgentError, event: str, **fields: object) -> None:
        log.warning(event, reason=str(fault), **fields)
        self._board.counters.add(FAULTS, kind=_kind(fault))
        self._board.note(last_fault=self._reported(fault))

    def _reported(self, fault: ScoutAgentError) -> ReportedFault:
        next_step = fault.next_step if isinstance(fault, DeliveryFault) else "look at the message"
        return ReportedFault(_kind(fault), str(fault), next_step, format_instant(self._clock.now()))


def _kind(fault: ScoutAgentError) -> str:
    return fault.kind if isinstance(fault, DeliveryFault) else "local"
