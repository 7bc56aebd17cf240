"""A shop's Pi without its card: till, spool and reports of a device, as far as the wire shows them.

May be relied on:
- What the till sells, when the device reboots and when it is offline follows from seed and device id alone, however
  late the caller comes by: `advance` makes up for what is due, in the order in which it was due.
- It forgets a batch when it is answered `settled`, and nothing else makes it.
- No input or output happens here; times are seconds since the fleet was started.
"""

import random
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from math import inf

from agent.boot_clock import is_better, measure
from agent.record_id import RecordIds
from wire.batch import BatchName, content_hash, sealing_day
from wire.heartbeat import AWAITED_MAX, RANGES_MAX, SETTLED, BootState, EpochState, Reply, Report, resend_number
from wire.record import Record, format_instant, to_line

BUILT_ON = date(2026, 1, 1)
COLD_CLOCK = datetime(2025, 6, 1, 8, tzinfo=UTC)
"""What the wall clock reads after a boot without a network: it has no battery."""

OFFLINE_SHARE = 0.25
REBOOT_SHARE = 0.15
SOLD_TWICE_SHARE = 0.03
GOODS = (("4800016644931", "Instant noodles", 1525), ("4807770270055", "Soap", 12000), ("4800001", "Soda 290 ml", 1805))


@dataclass(frozen=True, slots=True)
class Plan:
    """What a fleet does. The same plan sells the same."""

    seed: int
    devices: int
    seconds: float  # for so long the tills sell
    sale_every_s: float  # each till, on average
    seal_after_s: float
    heartbeat_every_s: float
    drain_s_max: float  # after that, until every device is settled


@dataclass(slots=True)
class Batch:
    """A sealed batch that is not settled yet."""

    name: BatchName
    jsonl: bytes
    accepted_s: float = inf

    @property
    def is_accepted(self) -> bool:
        """Whether bucket or endpoint took it; never a reason to forget it."""
        return self.accepted_s < inf


@dataclass(slots=True)
class Sold:
    """What a till wrote. Centavos are of distinct sales: one that is written twice counts once."""

    records: int = 0
    sales: int = 0
    centavos: int = 0


@dataclass(slots=True)
class _Epoch:
    name: str
    head: int = 0
    unsealed: list[bytes] = field(default_factory=list)


class SimulatedDevice:
    """One device. The caller moves time on and carries batches, reports and replies."""

    def __init__(self, device_id: str, plan: Plan, began: datetime) -> None:
        self.device_id = device_id
        self.sold = Sold()
        self.batches: dict[str, Batch] = {}
        self.settled_after_s: list[float] = []
        self.reboots = 0
        self.generations: set[str] = set()
        self._plan, self._began = plan, began
        self._chance = random.Random(f"{plan.seed} {device_id}")
        self._ids = RecordIds(self._chance)
        self._epochs: list[_Epoch] = []
        self._measured: BootState | None = None
        self._unheard: BootState | None = None
        self._said_empty_at_head = -1
        self._last_sale = ""
        self._boot(0.0, is_cold=False)
        self._next_sale_s = self._chance.expovariate(1 / plan.sale_every_s)
        self._seal_s = inf
        self.offline_from_s, self.offline_to_s = self._a_while(OFFLINE_SHARE, plan.seconds / 4)
        self._reboot_s, self._clock_right_s = self._a_while(REBOOT_SHARE, plan.seconds / 8)

    def _a_while(self, share: float, length_s: float) -> tuple[float, float]:
        """Some while for some of the devices, in the middle half of the time."""
        begins_s = self._plan.seconds * self._chance.uniform(0.25, 0.5)
        while_s = length_s * self._chance.uniform(0.5, 1.0)
        return (begins_s, begins_s + while_s) if self._chance.random() < share else (inf, inf)

    def is_online(self, now_s: float) -> bool:
        """Whether there is a network."""
        return not self.offline_from_s <= now_s < self.offline_to_s

    def next_s(self, now_s: float) -> float:
        """When there is something to do next; the calls home are the caller's."""
        back_s = inf if self.is_online(now_s) else self.offline_to_s
        return min(self._next_sale_s, self._seal_s, self._reboot_s, back_s)

    def advance(self, now_s: float) -> None:
        """Do what is due: sell, seal, boot."""
        while (due_s := min(self._next_sale_s, self._seal_s, self._reboot_s)) <= now_s:
            if due_s == self._seal_s:
                self._seal(due_s)
            elif due_s == self._reboot_s:
                self._reboot_s, self.reboots = inf, self.reboots + 1
                self._boot(due_s, is_cold=True)
            else:
                self._sell(due_s)
                self._next_sale_s = due_s + self._chance.expovariate(1 / self._plan.sale_every_s)
                if self._next_sale_s > self._plan.seconds:
                    self._next_sale_s = inf

    def to_send(self) -> list[Batch]:
        """The batches that nobody accepted yet, oldest first."""
        return [batch for batch in self.batches.values() if not batch.is_accepted]

    def report(self, now_s: float, nonce: str) -> Report:
        """What the device says of itself."""
        waiting = [batch.name.rows for batch in self.to_send()]
        accepted = [batch.name.rows for batch in self.batches.values() if batch.is_accepted]
        return Report(
            nonce=nonce,
            version="0.1.0",
            sent_at=format_instant(self._wall_clock(now_s)),
            clock=self._clock(now_s),
            boot=self._boot_name,
            mono_ms=self.mono_ms(now_s),
            epochs=tuple(EpochState(epoch.name, epoch.head, self._unsettled(epoch)) for epoch in self._epochs),
            awaits=tuple(key for key, batch in self.batches.items() if batch.is_accepted)[:AWAITED_MAX],
            waiting_rows=sum(waiting) + sum(len(epoch.unsealed) for epoch in self._epochs),
            accepted_rows=sum(accepted),
            set_aside_rows=0,
            spool_bytes=4096 + sum(len(batch.jsonl) for batch in self.batches.values()),
            disk_free_bytes=20_000_000_000,
            generation=max(self.generations, default=None),
            boots=(self._unheard,) if self._unheard else (),
        )

    def take(self, report: Report, reply: Reply, sent_s: float, received_s: float) -> None:
        """Do what the reply to this report says: forget what is settled, send again what is asked for."""
        self.generations.add(reply.generation)
        for key, state in reply.batches.items():
            number = resend_number(state)
            batch = self.batches.get(key)
            if batch is None:
                continue
            if state == SETTLED:
                self.settled_after_s.append(round(received_s - batch.accepted_s, 1))
                del self.batches[key]
            elif number is not None and number > batch.name.resend:
                batch.name, batch.accepted_s = batch.name.again(number), inf
        if self._unheard in report.boots:
            self._unheard = None
        if report.boot == self._boot_name:
            measured = measure(self._boot_name, reply.server_time, self.mono_ms(sent_s), self.mono_ms(received_s))
            if is_better(measured, self._measured):
                self._measured = self._unheard = measured
        if not any(epoch.unsettled for epoch in report.epochs):
            self._said_empty_at_head = self._heads

    @property
    def is_done(self) -> bool:
        """Whether nothing will be sold any more, all of it is settled, and the server was told so."""
        return self._next_sale_s == inf and not self.batches and self._said_empty_at_head == self._heads

    @property
    def unsettled_rows(self) -> int:
        """The records for which this device answers."""
        return sum(last - first + 1 for epoch in self._epochs for first, last in self._unsettled(epoch))

    def mono_ms(self, now_s: float) -> int:
        """Milliseconds since the boot."""
        return int((now_s - self._booted_s) * 1000)

    @property
    def _heads(self) -> int:
        return sum(epoch.head for epoch in self._epochs)

    def _boot(self, now_s: float, *, is_cold: bool) -> None:
        self._booted_s, self._is_cold = now_s, is_cold
        self._boot_name = f"{self._chance.getrandbits(64):016x}"
        self._epochs.append(_Epoch(f"{self._chance.getrandbits(64):016x}"))
        self._measured = None

    def _clock(self, now_s: float) -> str:
        return "unsynced" if self._is_cold and now_s < self._clock_right_s else "synced"

    def _wall_clock(self, now_s: float) -> datetime:
        if self._clock(now_s) == "unsynced":
            return COLD_CLOCK + timedelta(seconds=now_s - self._booted_s)
        return self._began + timedelta(seconds=now_s)

    def _sell(self, now_s: float) -> None:
        if not self._last_sale or self._chance.random() >= SOLD_TWICE_SHARE:
            self.sold.sales += 1
            quantities = [self._chance.randint(1, 4) for _ in GOODS]
            centavos = sum(quantity * good[2] for quantity, good in zip(quantities, GOODS, strict=True))
            self.sold.centavos += centavos
            items = ",".join(
                f'{{"sku":"{sku}","name":"{name}","quantity":{quantity},"price":{_pesos(price)}}}'
                for quantity, (sku, name, price) in zip(quantities, GOODS, strict=True)
            )
            self._last_sale = (
                f'{{"transaction_id":"sale-{self.sold.sales}","store_id":"102","peso_value":{_pesos(centavos)},'
                f'"payment_method":"cash","items":[{items}]}}'
            )
        self.sold.records += 1
        epoch, wall_clock = self._epochs[-1], self._wall_clock(now_s)
        epoch.head += 1
        (record_id,) = self._ids.mint(int(wall_clock.timestamp() * 1000), 1)
        record = Record(
            epoch.head,
            record_id,
            format_instant(wall_clock),
            self._clock(now_s),
            self._boot_name,
            self.mono_ms(now_s),
            self._last_sale.encode(),
        )
        epoch.unsealed.append(to_line(record) + b"\n")
        if self._seal_s == inf:
            self._seal_s = now_s + self._plan.seal_after_s

    def _seal(self, now_s: float) -> None:
        """Seal what waits, of the epoch before a reboot too."""
        self._seal_s = inf
        day = sealing_day(self._wall_clock(now_s).date(), BUILT_ON)
        for epoch in self._epochs:
            if epoch.unsealed:
                jsonl, first_seq = b"".join(epoch.unsealed), epoch.head - len(epoch.unsealed) + 1
                digest = content_hash(jsonl)[:16]
                name = BatchName(day, self.device_id, epoch.name, first_seq, epoch.head, digest)
                self.batches[name.key] = Batch(name, jsonl)
                epoch.unsealed.clear()

    def _unsettled(self, epoch: _Epoch) -> tuple[tuple[int, int], ...]:
        runs: list[tuple[int, int]] = []
        for batch in self.batches.values():
            if batch.name.epoch == epoch.name:
                _extend(runs, batch.name.first_seq, batch.name.last_seq)
        if epoch.unsealed:
            _extend(runs, epoch.head - len(epoch.unsealed) + 1, epoch.head)
        return tuple(runs)


def _extend(runs: list[tuple[int, int]], first: int, last: int) -> None:
    """Add a run, in rising order, as one with its neighbour; past RANGES_MAX the last one widens."""
    if runs and (first == runs[-1][1] + 1 or len(runs) >= RANGES_MAX):
        runs[-1] = (runs[-1][0], last)
    else:
        runs.append((first, last))


def _pesos(centavos: int) -> str:
    return f"{centavos // 100}.{centavos % 100:02d}"
