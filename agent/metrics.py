"""What `/metrics` shows: the spool's state, the daemon's counters, token, disk and clock, in Prometheus' text form.

May be relied on: FAMILIES lists every metric, and docs/metrics.md the same ones (a test compares). What can't be
known now has no sample rather than a made-up one. Ages are never negative, though a wall clock may step. Labels
hold words of ours only.
"""

import shutil
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from itertools import accumulate

from agent import VERSION
from agent.clock import Clock
from agent.config import Config
from agent.counters import (
    BATCHES_SENT,
    COMMITS,
    DURATION_BOUNDS_S,
    FAULTS,
    HEARTBEAT_ANSWERED,
    RECORDS_REFUSED,
    RECORDS_TAKEN,
    REQUEST_DURATION,
    REQUESTS,
    TEXT_BYTES_SENT,
    Counted,
    Counters,
    Durations,
    Labels,
)
from agent.errors import CredentialsRefused, LocalFault
from agent.holdings import SpoolState, read_state
from agent.token import TokenFile

Samples = Mapping[Labels, float]


@dataclass(frozen=True, slots=True)
class Family:
    """One metric. `expected` are label values that are shown from the start, at 0."""

    name: str
    kind: str  # counter | gauge | histogram
    help: str
    label: str = ""
    expected: tuple[str, ...] = ()


_PATHS = ("bucket", "endpoint")

FAMILIES = (
    Family("scout_agent_build_info", "gauge", "1, with the agent's version."),
    Family(RECORDS_TAKEN, "counter", "Records stored by a source.", "source", ("folder", "tail", "local_http")),
    Family(
        RECORDS_REFUSED, "counter", "Lines that a source refused as data.", "source", ("folder", "tail", "local_http")
    ),
    Family("scout_agent_records", "gauge", "Records in the spool by state."),
    Family("scout_agent_oldest_unsettled_age_seconds", "gauge", "Age of the oldest record without a receipt."),
    Family("scout_agent_spool_readable", "gauge", "1 while the spool can be read, else 0."),
    Family("scout_agent_spool_bytes", "gauge", "Size of the spool's files."),
    Family("scout_agent_disk_free_bytes", "gauge", "Free space on the spool's disk."),
    Family(BATCHES_SENT, "counter", "Batches that were accepted by a path.", "path", _PATHS),
    Family(TEXT_BYTES_SENT, "counter", "Text of these batches, before compression.", "path", _PATHS),
    Family(
        FAULTS,
        "counter",
        "Faults by what is to be done about them.",
        "kind",
        ("wait", "credentials", "refused", "operator", "local"),
    ),
    Family("scout_agent_last_accepted_age_seconds", "gauge", "Since a batch was accepted last."),
    Family("scout_agent_last_settled_age_seconds", "gauge", "Since a receipt came last."),
    Family("scout_agent_last_heartbeat_age_seconds", "gauge", "Since the server answered a call home last."),
    Family("scout_agent_token_expiry_timestamp_seconds", "gauge", "When the device token expires, Unix time."),
    Family("scout_agent_clock_synced", "gauge", "1 while a time server disciplines the clock, else 0."),
    Family(REQUESTS, "counter", "Requests to the local HTTP source by path and status.", "path"),
    Family(REQUEST_DURATION, "histogram", "From a request's first byte to its answer."),
    Family(COMMITS, "counter", "Commits of the local HTTP source. Posts at the same time share one."),
)


class Metrics:
    """Collects everything at each look."""

    def __init__(self, config: Config, counters: Counters, clock: Clock) -> None:
        self._config = config
        self._counters = counters
        self._clock = clock
        self._token = TokenFile(config.token_file)

    def exposition(self) -> bytes:
        """All metrics in text format 0.0.4."""
        counted = self._counters.read()
        gauges = self._gauges(counted)
        lines: list[str] = []
        for family in FAMILIES:
            lines += (f"# HELP {family.name} {family.help}", f"# TYPE {family.name} {family.kind}")
            if family.kind == "histogram":
                lines += _histogram_lines(family.name, counted.durations.get(family.name, Durations()))
            else:
                samples = gauges.get(family.name, {}) if family.kind == "gauge" else _counts(family, counted)
                lines += [f"{family.name}{_written(labels)} {value}" for labels, value in samples.items()]
        return "".join(f"{line}\n" for line in lines).encode()

    def _gauges(self, counted: Counted) -> dict[str, Samples]:
        gauges: dict[str, Samples] = {
            "scout_agent_build_info": {(("version", VERSION),): 1},
            "scout_agent_clock_synced": {(): float(self._clock.is_synced())},
        }
        heartbeat_s = counted.moments.get(HEARTBEAT_ANSWERED)
        if heartbeat_s is not None:
            gauges["scout_agent_last_heartbeat_age_seconds"] = {(): self._clock.monotonic_s() - heartbeat_s}
        gauges |= {name: {(): value} for name, value in self._machine_gauges()}
        try:
            state = read_state(self._config.spool_file)
        except LocalFault:
            return gauges | {"scout_agent_spool_readable": {(): 0}}
        return gauges | {name: {(): value} for name, value in self._spool_gauges(state)} | _records(state)

    def _machine_gauges(self) -> Iterator[tuple[str, float]]:
        with suppress(OSError):  # an unreadable disk shows in spool_readable
            yield "scout_agent_disk_free_bytes", shutil.disk_usage(self._config.spool_file.parent).free
        try:
            expires_at = self._token.read().expires_at
        except CredentialsRefused:
            return  # no sample: it counts as a fault where it is needed
        if expires_at is not None:
            yield "scout_agent_token_expiry_timestamp_seconds", expires_at.timestamp()

    def _spool_gauges(self, state: SpoolState) -> Iterator[tuple[str, float]]:
        yield "scout_agent_spool_readable", 1
        yield "scout_agent_spool_bytes", state.spool_bytes
        ages = {
            "oldest_unsettled": state.oldest_unsettled_at,
            "last_accepted": state.last_accepted_at,
            "last_settled": state.last_settled_at,
        }
        for what, at in ages.items():
            if at is not None:
                age_s = (self._clock.now() - datetime.fromisoformat(at)).total_seconds()
                yield f"scout_agent_{what}_age_seconds", max(0.0, age_s)


def _records(state: SpoolState) -> dict[str, Samples]:
    rows = {
        "unsealed": state.unsealed_rows,
        "waiting": state.waiting_rows,
        "accepted": state.accepted_rows,
        "set_aside": state.set_aside_rows,
        "settled": state.settled_rows,
    }
    return {"scout_agent_records": {(("state", name),): count for name, count in rows.items()}}


def _counts(family: Family, counted: Counted) -> Samples:
    """What was counted, after 0 for what is expected: a rate needs the first sample before the first event."""
    samples: dict[Labels, float] = {((family.label, value),): 0 for value in family.expected}
    samples |= {labels: count for (name, labels), count in sorted(counted.counts.items()) if name == family.name}
    return samples or ({} if family.label else {(): 0})


def _histogram_lines(name: str, durations: Durations) -> Iterator[str]:
    bounds = (*(f"{bound:g}" for bound in DURATION_BOUNDS_S), "+Inf")
    for bound, count in zip(bounds, accumulate(durations.counts), strict=True):
        yield f'{name}_bucket{{le="{bound}"}} {count}'
    yield f"{name}_sum {durations.sum_s}"
    yield f"{name}_count {sum(durations.counts)}"


def _written(labels: Labels) -> str:
    """Label values are words of ours: letters, digits and `/_.+-`, which need no escapes."""
    return "{" + ",".join(f'{name}="{value}"' for name, value in labels) + "}" if labels else ""
