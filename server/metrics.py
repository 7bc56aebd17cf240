"""`/metrics`: what an operator has Prometheus alert on.

May be relied on: no label names a device or holds anything of a sale, so the number of series is the same for one
device and for five thousand. What is asked of the database is what the operators' page asks, and is kept for both
(server/standing.py). While the database does not answer, what needs it is left out, and `scout_server_database_up`
is 0.

Who may read it shows a service token. An address is no proof: behind a proxy everybody comes from this machine.
"""

import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from importlib.metadata import version as installed_version
from pathlib import Path

import psycopg
import structlog
from prometheus_client import generate_latest
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from server.condition import CONDITIONS
from server.standing import Fleet, Lag, Road, Standing, Troubles
from server.tokens import SERVICE_ROLE, Identity, bearer
from server.traffic import Traffic

log = structlog.get_logger()

HOUR_S = 3600.0
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


def metrics_routes(
    read_token: Callable[[str], Identity],
    admit: Callable[[Identity], None],
    traffic: Traffic,
    fleet: Fleet,
    *,
    deliveries_waiting: Callable[[], int],
    data: Path | None = None,
) -> list[Route]:
    """Return the route. `read_token` checks a token's signature and times, `admit` asks the database about it.

    `data`: the directory whose disk is told of, if any.
    """
    traffic.registry.register(_Standing(fleet, deliveries_waiting, data))

    async def respond(request: Request) -> Response:
        identity = read_token(bearer(request.headers.get("authorization")))
        try:
            await run_in_threadpool(admit, identity)
        except psycopg.OperationalError:
            # Then there is nothing to tell but that, and what this process counted.
            log.warning("metrics_without_database")
        if identity.role != SERVICE_ROLE:
            raise HTTPException(403, "only a service token may read metrics: 'up' keeps one in DATA/secrets.")
        text = await run_in_threadpool(generate_latest, traffic.registry)
        return Response(text, headers={"Cache-Control": "no-store"}, media_type=CONTENT_TYPE)

    return [Route("/metrics", respond, methods=["GET"])]


class _Standing(Collector):
    """What is looked up when it is asked for."""

    def __init__(self, fleet: Fleet, deliveries_waiting: Callable[[], int], data: Path | None) -> None:
        self._fleet = fleet
        self._deliveries_waiting = deliveries_waiting
        self._data = data

    def describe(self) -> Iterable[Metric]:
        """Names are not looked up while registering: that would ask the database."""
        return ()

    def collect(self) -> Iterable[Metric]:
        """Look."""
        info = GaugeMetricFamily("scout_server_build_info", "1, with the server's version.", labels=["version"])
        info.add_metric([installed_version("scout-edge")], 1)
        yield info
        yield _gauge("committer_waiting_deliveries", "Posts that wait for a commit.", self._deliveries_waiting())
        if self._data is not None:
            yield from _of_disk(self._data)
        try:
            standings, road, lags = self._fleet.standings(), self._fleet.road(), self._fleet.lags()
            troubles = self._fleet.troubles()
        except psycopg.Error:
            yield _gauge("database_up", "1 while the database answers, else 0.", 0)
            return
        yield _gauge("database_up", "1 while the database answers, else 0.", 1)
        yield from _of_road(road)
        yield _p95("etl_lag_p95_seconds", "From bronze's commit to gold, of 95 of 100 sales.", lags.etl)
        yield _p95("capture_lag_p95_seconds", "From the sale to bronze, of 95 of 100 sales.", lags.capture)
        yield from _of_devices(standings)
        if troubles is not None:
            yield from _of_troubles(troubles)


def _of_disk(data: Path) -> Iterator[Metric]:
    with suppress(OSError):  # a disk that is gone takes the database with it, and that is told
        free_bytes = shutil.disk_usage(data).free
        yield _gauge("disk_free_bytes", "Free space on the disk of the data directory.", free_bytes)


def _of_road(road: Road) -> Iterator[Metric]:
    yield _gauge("waiting_objects", "Files that wait for a loader.", road.objects_waiting)
    yield _gauge("retried_objects", "Of these, files that failed before.", road.objects_retried)
    yield _gauge("waiting_objects_oldest_age_seconds", "How long the oldest has waited.", road.objects_oldest_s or 0)
    yield _gauge("waiting_rows", "Sales in bronze that wait for silver.", road.rows_waiting)
    yield _gauge("waiting_rows_oldest_age_seconds", "How long the oldest has waited.", road.rows_oldest_s or 0)
    is_held = road.renewals_held_since is not None
    yield _gauge("renewals_held", "1 while no token is renewed, after a restore, else 0.", is_held)
    backup_s = road.backed_up_at.timestamp() if road.backed_up_at else 0
    yield _gauge("last_backup_timestamp_seconds", "When the newest backup was complete; 0 before the first.", backup_s)
    yield _gauge("failed_loads", "Loads that the ETL could not move and tries again.", road.loads_failed)


def _of_devices(standings: list[Standing]) -> Iterator[Metric]:
    counts = Counter(condition.name for one in standings for condition in one.conditions)
    in_state = GaugeMetricFamily(
        "scout_server_devices_in_state", "Devices by state; one may be in several.", labels=["state"]
    )
    for condition in CONDITIONS:
        in_state.add_metric([condition.name], counts[condition.name])
    serving = [one.device for one in standings if not one.device.revoked_at]
    oldest_s = max((device.oldest_s for device in serving if device.oldest_s is not None), default=0)
    heard = sum(1 for device in serving if device.silent_s is not None and device.silent_s < HOUR_S)
    yield _gauge("devices", "Devices that are known.", len(standings))
    yield _gauge("devices_heard_last_hour", "Devices that called home within the last hour.", heard)
    yield in_state
    waiting, set_aside = sum(d.waiting_rows or 0 for d in serving), sum(d.set_aside_rows or 0 for d in serving)
    yield _gauge("devices_waiting_rows", "Sales on the devices, as reported last.", waiting)
    yield _gauge("devices_set_aside_rows", "Sales in batches that every path refused, as reported last.", set_aside)
    yield _gauge("devices_oldest_sale_age_seconds", "How long the oldest sale on a device has waited.", oldest_s)


def _of_troubles(troubles: Troubles) -> Iterator[Metric]:
    yield _gauge(
        "missing_rows", "Sales that a device once had and nobody holds.", sum(m.sales for m in troubles.missing)
    )
    yield _gauge("forked_rows", "Sales from copied cards.", sum(fork.sales for fork in troubles.forked))
    held = GaugeMetricFamily("scout_server_quarantine_undecided", "Held, and not decided upon.", labels=["kind"])
    held.add_metric(["line"], troubles.refused_lines)
    held.add_metric(["object"], troubles.refused_objects)
    yield held


def _p95(name: str, words: str, lag: Lag) -> GaugeMetricFamily:
    gauge = GaugeMetricFamily(f"scout_server_{name}", words, labels=["window"])
    for window, p95_s in (("hour", lag.p95_last_hour_s), ("day", lag.p95_last_day_s)):
        if p95_s is not None:
            gauge.add_metric([window], p95_s)
    return gauge


def _gauge(name: str, words: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"scout_server_{name}", words, value=value)
