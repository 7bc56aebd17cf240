"""What each page shows: values looked up and put in order; the templates only lay them out.

May be relied on: what a page costs is bounded, whatever the fleet has delivered so far. The overview asks nothing that
server/standing.py does not keep; the other pages read the first rows of an index.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import psycopg
from psycopg.rows import class_row

from server import fleet as devices
from server import ledger, quarantine
from server.condition import BAD, GOOD, OLDEST_LATE_S, OLDEST_USUAL_S, WARN
from server.database import named_queries
from server.pages.drawing import Drawing, draw_bars, draw_line, round_up_span
from server.pages.overview import Asked, needs_somebody, select
from server.pages.rendering import NOTHING, Page, below, brief, count, percent, short, span
from server.standing import Fleet, Lags, Reported, Road, Standing, Troubles, reported_history, sales_by_hour
from server.traffic import Recent, Traffic

FILES_SHOWN = 50
FILES_OF_DEVICE = 15
HELD_SHOWN = 100
HELD_OF_DEVICE = 20
EPOCHS_SHOWN = 500
LINE_BYTES_MAX = 64 * 1024
"""A longer line is not put into a page; the command line shows it whole."""
HISTORIES = {"day": ("24 hours", 24), "week": ("7 days", 168), "month": ("30 days", 720)}
CODE_HOURS = 48
"""Until then somebody is at the shop."""
ANSWER_SLOW_S = 1.0
SUCCESS_LOW = 0.99
QUEUE_LATE_S = 60.0
"""Loader and ETL look every five seconds."""
LAG_PROMISED_S = 120
"""From bronze to gold, of 95 of 100 sales."""

DONE = {
    "revoke": "The device is shut out from now on. Its sales stay on it.",
    "restore": "The device is let in again.",
    "rotate": "It is asked to renew its token at its next call home. The present one counts until then.",
    "rotate-at-once": "Its present tokens open nothing any more.",
    "replayed": "The line is in bronze now.",
    "known": "Bronze had that sale already. The line is settled, and nothing is doubled.",
    "discarded": "It is set aside, with your reason. It stays held, and can still be replayed.",
}


@dataclass(frozen=True, slots=True)
class Figure:
    """A number that says how things stand, and where to read more. `level` is one of condition.LEVELS."""

    words: str
    value: str
    note: str
    level: str
    href: str


@dataclass(frozen=True, slots=True)
class Stage:
    """A stretch of the road from the till to gold: what waits before it, and for how long."""

    words: str
    waiting: int | None
    unit: str
    oldest_s: float | None
    note: str
    level: str


@dataclass(frozen=True, slots=True)
class History:
    """What happened on a device within a span, drawn."""

    choice: str
    words: str
    begin_s: float
    end_s: float
    backlog: Drawing
    lag: Drawing
    sales: Drawing


def done(outcome: str) -> str:
    """What to say of what was just done; nothing of what is not known."""
    return DONE.get(outcome, "")


def sign_in(back: str, problem: str = "", status: int = 200) -> Page:
    """Ask for a token."""
    return Page("sign-in.html", {"session": None, "back": back, "problem": problem}, status)


def problem(message: str, status: int) -> Page:
    """Say what went wrong."""
    return Page("problem.html", {"session": None, "message": message, "status": status}, status)


def overview(fleet: Fleet, traffic: Traffic, query: Mapping[str, str]) -> Page:
    """Every device, what needs somebody first."""
    standings, road, troubles = fleet.standings(), fleet.road(), fleet.troubles()
    asked = Asked.of_query(query)
    values = {
        "asked": asked,
        "selection": select(standings, asked),
        "figures": [*_figures(standings, road, troubles, traffic.recent()), _promise(fleet.lags())],
        "renewals_held_since": road.renewals_held_since,
    }
    return Page("overview.html", values)


def device(
    connection: psycopg.Connection,
    standing: Standing,
    troubles: Troubles | None,
    known: devices.Device,
    query: Mapping[str, str],
) -> Page:
    """One device with its history."""
    device_id = standing.device.device_id
    held = quarantine.list_held(connection, device_id=device_id, ended=False, limit=HELD_OF_DEVICE)
    values = {
        "standing": standing,
        "device": standing.device,
        "known": known,
        "history": _history(connection, device_id, query.get("span", "")),
        "histories": HISTORIES,
        "held": held,
        "files": _recent_files(connection, device_id),
        "missing": [run for run in troubles.missing if run.device_id == device_id] if troubles else [],
        "forked": [fork for fork in troubles.forked if fork.device_id == device_id] if troubles else [],
        "alarms": [alarm for alarm in troubles.alarms if alarm.device_id == device_id] if troubles else [],
    }
    return Page("device.html", values)


def code(device_id: str, made: str, server: str, *, is_revoked: bool) -> Page:
    """Show a one-time code, this once, with the command to type on the device."""
    values = {"device_id": device_id, "code": made, "server": server, "is_revoked": is_revoked, "hours": CODE_HOURS}
    return Page("code.html", values)


def road(fleet: Fleet, traffic: Traffic) -> Page:
    """Where sales wait on their way, and how requests are answered."""
    waiting = fleet.road()
    values = {
        "stages": _stages(fleet.standings(), waiting),
        "backed_up_at": waiting.backed_up_at,
        "lags": fleet.lags(),
        "promise": _promise(fleet.lags()),
        "recent": traffic.recent(),
        "routes": traffic.by_route(),
    }
    return Page("road.html", values)


def missing(fleet: Fleet) -> Page:
    """Sales that nobody holds, and numbers that were given twice."""
    troubles = fleet.troubles()
    values = {
        "is_known": troubles is not None,
        "missing": troubles.missing[:EPOCHS_SHOWN] if troubles else (),
        "forked": troubles.forked[:EPOCHS_SHOWN] if troubles else (),
        "missing_sales": sum(run.sales for run in troubles.missing) if troubles else 0,
        "forked_sales": sum(fork.sales for fork in troubles.forked) if troubles else 0,
        "epochs_shown": EPOCHS_SHOWN,
    }
    return Page("missing.html", values)


def refused(connection: psycopg.Connection, query: Mapping[str, str]) -> Page:
    """What is held and waits for a decision; with `ended`, also what was decided."""
    device_id, ended = query.get("device", "")[:63], "ended" in query
    held = quarantine.list_held(connection, device_id=device_id or None, ended=ended, limit=HELD_SHOWN + 1)
    values = {"held": held[:HELD_SHOWN], "is_more": len(held) > HELD_SHOWN, "device_id": device_id, "ended": ended}
    return Page("refused.html", values)


def held(connection: psycopg.Connection, number: int) -> Page:
    """One of them, with the line itself. Raises UnknownHeld."""
    found = quarantine.find_held(connection, number)
    raw = quarantine.raw_of(connection, number) if found.kind == "line" and _is_short(found) else None
    values = {"one": found, "text": _as_text(raw), "raw": raw and raw.decode("utf-8", "backslashreplace")}
    return Page("held.html", values)


def mended(connection: psycopg.Connection, number: int, edited: str) -> bytes | None:
    """What an operator wants taken instead of a held line; None when it is the same. Raises UnknownHeld."""
    # A browser sends every line break of a form as two characters.
    text = edited.replace("\r\n", "\n")
    raw = quarantine.raw_of(connection, number)
    return None if _as_text(raw) == text else text.encode()


def files(connection: psycopg.Connection, query: Mapping[str, str]) -> Page:
    """The newest files of the ledger, or those that wait for a loader."""
    state = "found" if query.get("state") == "found" else None
    listed = ledger.list_files(connection, device_id=None, state=state, day=None, limit=FILES_SHOWN)
    return Page("files.html", {"files": listed, "state": state or ""})


def _figures(standings: list[Standing], road: Road, troubles: Troubles | None, recent: Recent) -> list[Figure]:
    """How things stand, in seven numbers."""
    serving = [one.device for one in standings if not one.device.revoked_at]
    attention = sum(needs_somebody(one) for one in standings)
    waiting = sum(one.waiting_rows or 0 for one in serving)
    oldest_s = max((one.oldest_s for one in serving if one.oldest_s is not None), default=None)
    lag_s = max(road.objects_oldest_s or 0.0, road.rows_oldest_s or 0.0)
    missing = sum(run.sales for run in troubles.missing) if troubles else None
    refused = troubles.refused_lines + troubles.refused_objects if troubles else None
    within = f"in {span(recent.span_s)}"
    return [
        Figure(
            "need attention",
            count(attention),
            f"of {count(len(standings))} devices",
            WARN if attention else GOOD,
            "/fleet?state=attention",
        ),
        Figure(
            "sales on devices",
            short(waiting),
            f"oldest {span(oldest_s)}",
            _level(oldest_s, OLDEST_USUAL_S, OLDEST_LATE_S),
            "/fleet?sort=oldest",
        ),
        Figure(
            "sales missing",
            short(missing),
            "being counted" if missing is None else "nobody holds them" if missing else "none",
            BAD if missing else GOOD,
            "/fleet/missing",
        ),
        Figure(
            "refused",
            short(refused),
            "being counted" if refused is None else "undecided" if refused else "none",
            WARN if refused else GOOD,
            "/fleet/refused",
        ),
        Figure(
            "uploads arrived",
            percent(recent.success),
            f"of {count(recent.uploads)} {within}" if recent.uploads else f"none came {within}",
            WARN if recent.success is not None and recent.success < SUCCESS_LOW else GOOD,
            "/fleet/road",
        ),
        Figure(
            "response p99",
            brief(recent.p99_s),
            f"uploads {within}",
            WARN if (recent.p99_s or 0.0) > ANSWER_SLOW_S else GOOD,
            "/fleet/road",
        ),
        Figure(
            "lag to gold",
            span(lag_s) if lag_s >= 60 else brief(lag_s),
            f"{short(road.rows_waiting)} sales, {short(road.objects_waiting)} files wait",
            _level(lag_s, QUEUE_LATE_S, 10 * QUEUE_LATE_S),
            "/fleet/road",
        ),
    ]


def _promise(lags: Lags) -> Figure:
    """Whether what came in the last hour was in gold as soon as we promise."""
    p95_s, promised = lags.etl.p95_last_hour_s, f"the {span(LAG_PROMISED_S)} promised"
    is_kept = p95_s is None or p95_s <= LAG_PROMISED_S
    if p95_s is None:
        return Figure("lag p95", NOTHING, "nothing came in the last hour", GOOD, "/fleet/road")
    note = f"last hour, {'under' if is_kept else 'over'} {promised}"
    return Figure("lag p95", below(p95_s), note, GOOD if is_kept else BAD, "/fleet/road")


def _stages(standings: list[Standing], road: Road) -> list[Stage]:
    serving = [one.device for one in standings if not one.device.revoked_at]
    oldest_s = max((one.oldest_s for one in serving if one.oldest_s is not None), default=None)
    retried = f"{count(road.objects_retried)} failed before and are tried again" if road.objects_retried else ""
    failed = f"{count(road.loads_failed)} failed; see the server's log" if road.loads_failed else ""
    return [
        Stage(
            "device → bucket",
            sum(one.waiting_rows or 0 for one in serving),
            "sales",
            oldest_s,
            "as devices reported last",
            _level(oldest_s, OLDEST_USUAL_S, OLDEST_LATE_S),
        ),
        Stage(
            "bucket → bronze",
            road.objects_waiting,
            "files",
            road.objects_oldest_s,
            retried,
            WARN if retried else _level(road.objects_oldest_s, QUEUE_LATE_S, 10 * QUEUE_LATE_S),
        ),
        Stage(
            "bronze → silver",
            road.rows_waiting,
            "sales",
            road.rows_oldest_s,
            failed,
            BAD if failed else _level(road.rows_oldest_s, QUEUE_LATE_S, 10 * QUEUE_LATE_S),
        ),
        Stage("silver → gold", None, "", None, "gold is made of silver in the same step: never behind it", GOOD),
    ]


def _history(connection: psycopg.Connection, device_id: str, choice: str) -> History:
    choice = choice if choice in HISTORIES else "week"
    words, hours = HISTORIES[choice]
    end_s = _now_s(connection)
    begin_s = end_s - hours * 3600
    reports = reported_history(connection, device_id, hours)
    sales = {hour_s: float(sold) for hour_s, sold in sales_by_hour(connection, device_id, hours).items()}
    return History(
        choice,
        words,
        begin_s,
        end_s,
        backlog=draw_line([(one.at_s, _backlog(one)) for one in reports], begin_s, end_s, 10.0),
        lag=draw_line([(one.at_s, _lag_s(one)) for one in reports], begin_s, end_s, 60.0, round_up_span),
        sales=draw_bars(sales, begin_s, end_s, 10.0),
    )


def _backlog(report: Reported) -> float | None:
    return None if report.waiting_rows is None else float(report.waiting_rows)


def _lag_s(report: Reported) -> float | None:
    """Nothing that waits is no lag; only where nothing is said of what waits, nothing is known."""
    return report.oldest_s if report.oldest_s is not None else 0.0 if report.waiting_rows == 0 else None


def _now_s(connection: psycopg.Connection) -> float:
    row = connection.execute(named_queries("pages")["now"]).fetchone()
    assert row
    return float(row[0])


def _recent_files(connection: psycopg.Connection, device_id: str) -> list[ledger.LedgerFile]:
    values = {"device_id": device_id, "limit": FILES_OF_DEVICE}
    with connection.cursor(row_factory=class_row(ledger.LedgerFile)) as cursor:
        return cursor.execute(named_queries("pages")["recent_files"], values).fetchall()


def _is_short(found: quarantine.Held) -> bool:
    return found.bytes is not None and found.bytes <= LINE_BYTES_MAX


def _as_text(raw: bytes | None) -> str | None:
    """A line as text that a form can carry and give back; None for what it can't."""
    try:
        text = (raw or b"").decode()
    except UnicodeDecodeError:
        return None
    return text if raw is not None and "\r" not in text and "\0" not in text else None


def _level(seconds: float | None, warn_s: float, bad_s: float) -> str:
    return GOOD if seconds is None or seconds <= warn_s else WARN if seconds <= bad_s else BAD
