"""`/metrics`: what it says is true, is in Prometheus' text form to the letter, and is what docs/metrics.md lists."""

import math
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from agent_kit import BUILT_ON, NOW, a_token, open_spool, sale, write_config
from fakes import FakeClock

from agent import VERSION
from agent import config as configuration
from agent.counters import (
    BATCHES_SENT,
    COMMITS,
    DURATION_BOUNDS_S,
    FAULTS,
    HEARTBEAT_ANSWERED,
    RECORDS_TAKEN,
    REQUEST_DURATION,
    REQUESTS,
    Counters,
)
from agent.metrics import FAMILIES, Metrics
from wire.record import format_instant

DOCS = Path(__file__).parents[2] / "docs" / "metrics.md"

_NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")
_SAMPLE = re.compile(
    r"(?P<name>[a-zA-Z_:][a-zA-Z0-9_:]*)"
    r'(?:\{(?P<labels>[a-zA-Z_][a-zA-Z0-9_]*="(?:[^"\\\n]|\\["\\n])*"(?:,[a-zA-Z_][a-zA-Z0-9_]*="(?:[^"\\\n]|\\["\\n])*")*)\})?'
    r" (?P<value>[+-]?(?:\d+(?:\.\d+)?(?:[eE][+-]?\d+)?|Inf)|NaN)"
)
_LABEL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\["\\n])*)"')


@dataclass
class Parsed:
    """One metric as a scraper reads it."""

    kind: str
    help: str
    samples: dict[tuple[str, tuple[tuple[str, str], ...]], float] = field(default_factory=dict)


def parsed(page: bytes) -> dict[str, Parsed]:
    """Read the text form strictly: HELP, TYPE, then the samples of that metric, each once; a line feed at the end."""
    text = page.decode("utf-8")
    assert text.endswith("\n")
    families: dict[str, Parsed] = {}
    name = ""
    lines = iter(text.removesuffix("\n").split("\n"))
    for line in lines:
        if line.startswith("# HELP "):
            _, _, name, help_text = line.split(" ", 3)
            assert _NAME.fullmatch(name)
            assert name not in families, f"{name} comes twice"
            assert "\\" not in help_text
            type_line = next(lines).split(" ")
            assert type_line[:3] == ["#", "TYPE", name]
            (kind,) = type_line[3:]
            assert kind in ("counter", "gauge", "histogram")
            families[name] = Parsed(kind, help_text)
            continue
        sample = _SAMPLE.fullmatch(line)
        assert sample, line
        labels = tuple(_LABEL.findall(sample["labels"] or ""))
        suffixes = ("_bucket", "_sum", "_count") if families[name].kind == "histogram" else ("",)
        assert sample["name"] in [name + suffix for suffix in suffixes], line
        key = (sample["name"], labels)
        assert key not in families[name].samples, f"{line} comes twice"
        families[name].samples[key] = float(sample["value"])
    return families


@pytest.fixture
def look(tmp_path: Path, clock: FakeClock, counters: Counters) -> Callable[[], dict[str, Parsed]]:
    """Give a way to read the metrics of a device whose spool may not be there yet."""
    config = configuration.load(write_config(tmp_path, "http://127.0.0.1:8700"))
    metrics = Metrics(config, counters, clock)
    return lambda: parsed(metrics.exposition())


@pytest.fixture
def counters() -> Counters:
    """Return counters of an agent that just began."""
    return Counters()


def values(families: dict[str, Parsed], name: str) -> dict[tuple[tuple[str, str], ...], float]:
    """The samples of a metric by labels."""
    return {labels: value for (_, labels), value in families[name].samples.items()}


def test_the_page_lists_every_metric_of_a_busy_agent_and_no_other(
    look: Callable[[], dict[str, Parsed]], tmp_path: Path, clock: FakeClock, counters: Counters
) -> None:
    """Name, type, labels and meaning; and each of them has a sample."""
    a_busy_agent(tmp_path, clock, counters)
    shown = look()
    rows = re.findall(r"^\| `(scout_\w+)` \| (\w+) \| ?\w* \| ?(.*?) ?\| (.*?) \|$", DOCS.read_text(), re.MULTILINE)
    labels = {name: {label for (_, pairs) in family.samples for label, _ in pairs} for name, family in shown.items()}

    assert len(shown) == len(FAMILIES) > 15
    assert [(name, kind, meaning) for name, kind, _, meaning in rows] == [
        (name, family.kind, family.help) for name, family in shown.items()
    ]
    assert {name: set(re.findall(r"`(\w+)`", listed)) for name, _, listed, _ in rows} == labels
    assert [name for name, family in shown.items() if not family.samples] == []


def test_names_and_units_follow_the_convention() -> None:
    """Counters end in _total; base units only, at the end of the name."""
    for family in FAMILIES:
        assert family.name.startswith("scout_agent_")
        assert family.name.endswith("_total") == (family.kind == "counter")
        assert not re.search(r"_(ms|milliseconds|minutes|days|kb|mb|megabytes)\b", family.name)


def a_busy_agent(home: Path, clock: FakeClock, counters: Counters) -> None:
    """Of five records one is settled, one accepted, one set aside, one waits, one isn't sealed; much was counted."""
    (home / "token").write_text(a_token(clock.now()))
    spool = open_spool(home / "spool" / "spool.db", clock)
    for number in range(4):
        spool.append([sale(number)])
        spool.seal(NOW, BUILT_ON)
        clock.pass_s(100)
    spool.append([sale(4)])
    for _ in range(2):
        spool.accept(spool.next_waiting(), "bucket")
    clock.pass_s(10)
    spool.settle(spool.awaited(1), format_instant(clock.now()))
    spool.refuse(spool.next_waiting(), "no", refusals_max=1)
    spool.close()
    counters.happened(HEARTBEAT_ANSWERED, clock.monotonic_s())
    counters.add(RECORDS_TAKEN, 5, source="folder")
    counters.add(BATCHES_SENT, path="bucket")
    counters.add(FAULTS, 2, kind="wait")
    counters.add(REQUESTS, path="/metrics", status="200")
    counters.add(COMMITS, 3)
    counters.took(REQUEST_DURATION, 0.01)
    counters.took(REQUEST_DURATION, 60.0)
    clock.pass_s(20)


def test_what_it_shows_is_what_there_is(
    look: Callable[[], dict[str, Parsed]], tmp_path: Path, clock: FakeClock, counters: Counters
) -> None:
    """From spool, counters, token and clock."""
    a_busy_agent(tmp_path, clock, counters)
    clock.synced = False
    shown = look()

    def value(name: str) -> float:
        (only,) = values(shown, f"scout_agent_{name}").values()
        return only

    assert values(shown, "scout_agent_records") == {
        (("state", state),): 1 for state in ("unsealed", "waiting", "accepted", "set_aside", "settled")
    }
    assert value("oldest_unsettled_age_seconds") == pytest.approx(330)  # 300 until the last, 10 and 20 later
    assert value("last_accepted_age_seconds") == pytest.approx(30)
    assert value("last_settled_age_seconds") == pytest.approx(20)
    assert value("last_heartbeat_age_seconds") == pytest.approx(20)
    assert value("token_expiry_timestamp_seconds") == pytest.approx(clock.now().timestamp() - 430)
    assert (value("clock_synced"), value("spool_readable")) == (0, 1)
    assert value("spool_bytes") > 4096
    assert value("disk_free_bytes") > 4096
    assert values(shown, "scout_agent_build_info") == {(("version", VERSION),): 1}
    assert values(shown, RECORDS_TAKEN) == {
        (("source", source),): rows for source, rows in {"folder": 5, "tail": 0, "local_http": 0}.items()
    }
    assert values(shown, FAULTS)[("kind", "wait"),] == 2
    assert values(shown, REQUESTS) == {(("path", "/metrics"), ("status", "200")): 1}
    assert value("local_http_commits_total") == 3


def test_the_histogram_counts_each_duration_in_every_bucket_that_holds_it(
    look: Callable[[], dict[str, Parsed]], counters: Counters
) -> None:
    """Buckets rise, the last is +Inf and equals the count."""
    for seconds in (0.001, DURATION_BOUNDS_S[0], 0.3, 1000.0):
        counters.took(REQUEST_DURATION, seconds)
    samples = look()[REQUEST_DURATION].samples
    buckets = {float(dict(labels)["le"]): value for (name, labels), value in samples.items() if name.endswith("bucket")}

    assert buckets == {0.005: 2, 0.02: 2, 0.1: 2, 0.5: 3, 2.0: 3, 10.0: 3, math.inf: 4}
    assert samples[f"{REQUEST_DURATION}_count", ()] == 4
    assert samples[f"{REQUEST_DURATION}_sum", ()] == pytest.approx(1000.306)


def test_what_is_not_known_has_no_sample_and_what_may_come_is_0(
    look: Callable[[], dict[str, Parsed]], tmp_path: Path
) -> None:
    """Before the first sale, without a token: a page nevertheless, and rates begin at the first event."""
    (tmp_path / "token").unlink()
    shown = look()

    assert values(shown, "scout_agent_spool_readable") == {(): 0}
    assert set(values(shown, FAULTS)) == {
        (("kind", kind),) for kind in ("wait", "credentials", "refused", "operator", "local")
    }
    assert set(values(shown, FAULTS).values()) == {0}
    for name in ("oldest_unsettled_age", "last_accepted_age", "last_heartbeat_age", "token_expiry_timestamp"):
        assert shown[f"scout_agent_{name}_seconds"].samples == {}


def test_an_age_is_never_negative_though_the_clock_was_set_back(
    look: Callable[[], dict[str, Parsed]], tmp_path: Path, clock: FakeClock
) -> None:
    """A cold boot may begin in 1970."""
    spool = open_spool(tmp_path / "spool" / "spool.db", clock)
    spool.append([sale(1)])
    spool.close()
    clock.now_is(clock.now().replace(year=1970))

    assert values(look(), "scout_agent_oldest_unsettled_age_seconds") == {(): 0}


def test_every_thread_may_count() -> None:
    """No count is lost."""
    counters = Counters()
    with ThreadPoolExecutor(8) as threads:
        for _ in range(4000):
            threads.submit(counters.add, COMMITS)

    assert counters.read().counts == {(COMMITS, ()): 4000}
