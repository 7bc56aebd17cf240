"""Counts the requests as they are answered: by route, method and status, and how long each took.

May be relied on: no label holds anything of a request but which route of ours it met and one of eight methods, so
that no sender can make memory grow. For an upload the status is the one that Supabase's storage puts into the body:
a 400 there may mean that the object is there already, which is well.
"""

import threading
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, Histogram, disable_created_metrics
from starlette.routing import BaseRoute, Route
from starlette.types import Scope

BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
RECENT_S = 300.0
OTHER = "other"
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"})
_TOTAL = "scout_server_requests_total"
_BUCKET = "scout_server_request_duration_seconds_bucket"
REFUSED_AS = "scout.refused_as"
"""Key of the scope below which an endpoint leaves the status that its answer's body has."""


@dataclass(frozen=True, slots=True)
class Sums:
    """How many uploads were answered so far: all, well, and by how long they took."""

    at_s: float
    requests: float
    well: float
    within: tuple[float, ...]  # each of BUCKETS_S, cumulative


@dataclass(frozen=True, slots=True)
class Recent:
    """How uploads fared within the last `span_s`. None where there were none."""

    span_s: float
    uploads: int
    success: float | None  # 0 to 1
    p99_s: float | None  # as near as the histogram's buckets are; beyond the last one, that one


@dataclass(frozen=True, slots=True)
class OfRoute:
    """How the requests of a route fared since the start."""

    route: str
    requests: int
    well: int
    p99_s: float | None


class Traffic:
    """Owns the registry of these counts. `uploads` are the routes by which sales are delivered."""

    def __init__(self, uploads: Iterable[str], monotonic: Callable[[], float]) -> None:
        # When each series began would be another series for each: Prometheus sees resets by itself.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = CollectorRegistry()
        self._requests = Counter(
            "scout_server_requests",
            "Requests answered, by route, method and status.",
            ["route", "method", "status"],
            registry=self.registry,
        )
        self._seconds = Histogram(
            "scout_server_request_duration_seconds",
            "From a request's headers to the end of its answer.",
            ["route"],
            buckets=BUCKETS_S,
            registry=self.registry,
        )
        self._uploads = frozenset(uploads)
        self._monotonic = monotonic
        self._routes: dict[int, list[str]] = {}
        self._lock = threading.Lock()
        self._taken: deque[Sums] = deque([self._sums()])

    def name(self, routes: Iterable[BaseRoute]) -> None:
        """Learn the routes by the functions that answer them, several of which may share one."""
        for route in routes:
            if isinstance(route, Route):
                self._routes.setdefault(id(route.endpoint), []).append(route.path)

    def note(self, scope: Scope, status: int, seconds: float) -> None:
        """Count a request that was answered; one whose sender left before has status 0."""
        routes = self._routes.get(id(scope.get("endpoint")), [OTHER])
        route = scope["path"] if scope["path"] in routes else routes[0]
        method = scope["method"] if scope["method"] in METHODS else OTHER
        self._requests.labels(route, method, str(scope.get(REFUSED_AS, status or "none"))).inc()
        self._seconds.labels(route).observe(seconds)

    def recent(self) -> Recent:
        """How uploads fared lately: within RECENT_S, or since this was last asked if that is longer ago."""
        with self._lock:
            now = self._sums()
            # The first one kept is the youngest that is old enough.
            while len(self._taken) > 1 and now.at_s - self._taken[1].at_s >= RECENT_S:
                self._taken.popleft()
            before = self._taken[0]
            if now.at_s - self._taken[-1].at_s >= RECENT_S / 60:
                self._taken.append(now)
        uploads = now.requests - before.requests
        within = [late - early for late, early in zip(now.within, before.within, strict=True)]
        return Recent(
            span_s=now.at_s - before.at_s,
            uploads=round(uploads),
            success=(now.well - before.well) / uploads if uploads else None,
            p99_s=quantile(0.99, uploads, within),
        )

    def by_route(self) -> list[OfRoute]:
        """How the requests of each route fared that were answered since the start, by name."""
        routes = {labels["route"] for labels, _ in self._samples(self._requests, _TOTAL)}
        return [self._of_route(route) for route in sorted(routes)]

    def _of_route(self, route: str) -> OfRoute:
        sums = self._sums(frozenset({route}))
        return OfRoute(route, round(sums.requests), round(sums.well), quantile(0.99, sums.requests, sums.within))

    def _sums(self, routes: frozenset[str] | None = None) -> Sums:
        wanted = self._uploads if routes is None else routes
        requests = well = 0.0
        for labels, value in self._samples(self._requests, _TOTAL):
            if labels["route"] in wanted:
                requests += value
                well += value * _is_well(labels["status"])
        within = dict.fromkeys(BUCKETS_S, 0.0)
        for labels, value in self._samples(self._seconds, _BUCKET):
            bound_s = float(labels["le"])
            if labels["route"] in wanted and bound_s in within:
                within[bound_s] += value
        return Sums(self._monotonic(), requests, well, tuple(within.values()))

    def _samples(self, family: Counter | Histogram, name: str) -> Iterable[tuple[dict[str, str], float]]:
        for metric in family.collect():
            for sample in metric.samples:
                if sample.name == name:
                    yield sample.labels, sample.value


def quantile(share: float, requests: float, within: Iterable[float]) -> float | None:
    """Within which time this share of requests was answered, from cumulative counts per bucket; None without any."""
    if requests <= 0:
        return None
    wanted, below, below_s = share * requests, 0.0, 0.0
    for count, bound_s in zip(within, BUCKETS_S, strict=True):
        if count >= wanted:
            return below_s + (bound_s - below_s) * (wanted - below) / (count - below)
        below, below_s = count, bound_s
    return BUCKETS_S[-1]


def _is_well(status: str) -> bool:
    """Whether a request with this answer got what it wanted: 409 says that the object is there."""
    return status.startswith(("2", "3")) or status == "409"
