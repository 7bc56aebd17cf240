"""The operators' page: which address shows what, and what its forms do.

    GET  /fleet                            every device, what needs somebody first
    GET  /fleet/devices/DEVICE             one of them, with its history
    POST /fleet/devices/DEVICE/ACTION      revoke, restore, rotate, rotate-at-once, code
    POST /fleet/devices                    a code for a device that may be new
    GET  /fleet/road                       where sales wait, how requests are answered
    GET  /fleet/missing                    gaps, and copied cards
    GET  /fleet/refused                    what is held; /fleet/refused/NUMBER with the line itself
    POST /fleet/refused/NUMBER/ACTION      replay, discard
    GET  /fleet/files                      the newest of the ledger
    GET, POST /fleet/sign-in, POST /fleet/sign-out, GET /fleet/static/FILE

May be relied on: but for signing in and what its page stands on, nothing is answered to who is not signed in, and
nothing is changed by a request that does not come from a page of ours. Each action is in the log with the name of
who did it. No payload is on any page but the one that was asked for a held line.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from time import monotonic
from urllib.parse import parse_qsl, quote

import psycopg
import structlog
from psycopg_pool import ConnectionPool
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from server import fleet as devices
from server import quarantine, tokens
from server.body import read_body
from server.config import Limits
from server.errors import Misconfigured, ServerError
from server.pages import session, views
from server.pages.rendering import HEADERS, Moved, Page, assets, render, render_live
from server.pages.session import PATH, Session
from server.standing import Fleet
from server.traffic import Traffic
from server.tries import Tries

FORM_BYTES_MAX = 1024 * 1024
FORM_FIELDS_MAX = 10
WRONG_TOKENS_MAX = 10
WRONG_TOKENS_WINDOW_S = 600.0
WHY_CHARACTERS_MAX = 500
NUMBER_MAX = 2**63 - 1
LIVE_HEADER = "x-scout-live"
"""Sent by the page's own script, which wants what changes and no more."""

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Parts:
    """What the pages stand on."""

    pool: ConnectionPool
    fleet: Fleet
    traffic: Traffic
    secret: str
    now: Callable[[], datetime]
    limits: Limits
    read_token: Callable[[str], tokens.Identity]


@dataclass(frozen=True, slots=True)
class Visit:
    """A request of somebody who is signed in."""

    path: Mapping[str, str]
    query: Mapping[str, str]
    form: Mapping[str, str]
    session: Session
    server: str  # as the visitor reaches it


class NotFound(ServerError):
    """There is nothing at this address."""


Answer = Callable[[Parts, Visit], Page | Moved]


def fleet_routes(parts: Parts) -> list[Route]:
    """Return the routes below /fleet."""
    return [
        *_sign_in_routes(parts),
        Route(f"{PATH}/static/{{name}}", _static, methods=["GET"]),
        _shown(parts, PATH, _overview),
        _shown(parts, f"{PATH}/devices/{{device_id}}", _device),
        _done(parts, f"{PATH}/devices", _let_in),
        _done(parts, f"{PATH}/devices/{{device_id}}/{{action}}", _act_on_device),
        _shown(parts, f"{PATH}/road", _road),
        _shown(parts, f"{PATH}/missing", _missing),
        _shown(parts, f"{PATH}/refused", _refused),
        _shown(parts, f"{PATH}/refused/{{number:int}}", _held),
        _done(parts, f"{PATH}/refused/{{number:int}}/{{action}}", _act_on_held),
        _shown(parts, f"{PATH}/files", _files),
        _shown(parts, f"{PATH}/{{rest:path}}", _nowhere),
    ]


def _overview(parts: Parts, visit: Visit) -> Page:
    return views.overview(parts.fleet, parts.traffic, visit.query)


def _device(parts: Parts, visit: Visit) -> Page:
    device_id = visit.path["device_id"]
    standing, troubles = parts.fleet.standing(device_id), parts.fleet.troubles()
    if standing is None:
        raise NotFound(f"no device is called {device_id[:80]!r}: the overview shows all.")
    with parts.pool.connection() as connection:
        known = devices.device(connection, device_id, parts.now())
        return views.device(connection, standing, troubles, known, visit.query)


def _road(parts: Parts, _: Visit) -> Page:
    return views.road(parts.fleet, parts.traffic)


def _missing(parts: Parts, _: Visit) -> Page:
    return views.missing(parts.fleet)


def _refused(parts: Parts, visit: Visit) -> Page:
    with parts.pool.connection() as connection:
        return views.refused(connection, visit.query)


def _held(parts: Parts, visit: Visit) -> Page:
    number = _number(visit)
    with parts.pool.connection() as connection:
        page = views.held(connection, number)
    log.info("held_line_shown", number=number, by=visit.session.subject)
    return page


def _files(parts: Parts, visit: Visit) -> Page:
    with parts.pool.connection() as connection:
        return views.files(connection, visit.query)


def _number(visit: Visit) -> int:
    number = int(visit.path["number"])
    if number > NUMBER_MAX:
        raise NotFound
    return number


def _nowhere(_: Parts, __: Visit) -> Page:
    raise NotFound


def _let_in(parts: Parts, visit: Visit) -> Page:
    return _make_code(parts, visit, visit.form.get("device_id", "").strip())


def _make_code(parts: Parts, visit: Visit, device_id: str) -> Page:
    with parts.pool.connection() as connection:
        made, _ = devices.new_code(connection, device_id, timedelta(hours=views.CODE_HOURS), parts.now())
        is_revoked = devices.device(connection, device_id, parts.now()).revoked_at is not None
    log.warning("device_changed", action="code", device_id=device_id, by=visit.session.subject)
    parts.fleet.forget()
    return views.code(device_id, made, visit.server, is_revoked=is_revoked)


def _act_on_device(parts: Parts, visit: Visit) -> Page | Moved:
    device_id, action = visit.path["device_id"], visit.path["action"]
    if action == "code":
        return _make_code(parts, visit, device_id)
    with parts.pool.connection() as connection:
        if action == "revoke":
            devices.revoke(connection, device_id, parts.now())
        elif action == "restore":
            devices.restore(connection, device_id, parts.now())
        elif action in ("rotate", "rotate-at-once"):
            devices.device(connection, device_id, parts.now())
            devices.rotate(connection, [device_id], at_once=action == "rotate-at-once", now=parts.now())
        else:
            raise NotFound
    log.warning("device_changed", action=action, device_id=device_id, by=visit.session.subject)
    parts.fleet.forget()
    return Moved(f"{PATH}/devices/{quote(device_id)}?done={action}")


def _act_on_held(parts: Parts, visit: Visit) -> Moved:
    number, action = _number(visit), visit.path["action"]
    if action == "replay":
        edited = visit.form.get("edited")
        with parts.pool.connection() as connection:
            mended = None if edited is None else views.mended(connection, number, edited)
        done = quarantine.replay(parts.pool, number, mended)
        outcome = "replayed" if done.accepted else "known"
    elif action == "discard":
        why = visit.form.get("why", "").strip()
        if not 0 < len(why) <= WHY_CHARACTERS_MAX:
            raise Misconfigured(f"say why, in at most {WHY_CHARACTERS_MAX} characters: it is kept with what is held.")
        if not quarantine.discard(parts.pool, [number], why):
            raise Misconfigured(f"nothing is held under number {number}, or it was decided before.")
        outcome = "discarded"
    else:
        raise NotFound
    log.warning("held_line_decided", action=action, number=number, by=visit.session.subject)
    parts.fleet.forget()
    return Moved(f"{PATH}/refused?done={outcome}")


def _sign_in_routes(parts: Parts) -> list[Route]:
    tries = Tries(WRONG_TOKENS_MAX, WRONG_TOKENS_WINDOW_S)

    async def show(request: Request) -> Response:
        return render(views.sign_in(session.way_back(request.query_params.get("next", PATH))))

    async def sign_in(request: Request) -> Response:
        form = await _form(request, parts.limits)
        back = session.way_back(form.get("next", PATH))
        address = request.client.host if request.client else ""

        def begin() -> str:
            identity = parts.read_token(form.get("token", "").strip())
            with parts.pool.connection() as connection:
                cookie = session.begin(connection, parts.secret, identity, parts.now())
            log.info("signed_in", by=identity.subject, address=address)
            return cookie

        if not session.is_from_here(request.headers):
            return render(views.sign_in(back, "This came from another site. Sign in here.", status=403))
        try:
            cookie = await run_in_threadpool(begin)
        except tokens.TokenRefused as refused:
            # A good token is never made to wait for what others tried: behind a proxy, all have one address.
            wait_s = tries.begin(address, monotonic())
            log.warning("sign_in_refused", reason=str(refused), address=address)
            if wait_s:
                page = views.sign_in(back, "Too many wrong tokens came from your address. Wait a while.", status=429)
                return render(replace(page, headers={"Retry-After": str(int(wait_s) + 1)}))
            return render(views.sign_in(back, f"{refused}.", status=refused.http_status))
        except psycopg.OperationalError:
            return _unavailable(parts.limits)
        headers = {**HEADERS, "Set-Cookie": session.set_cookie(cookie, request.headers, request.url.scheme)}
        return RedirectResponse(back, 303, headers)

    def sign_out(_: Parts, __: Visit) -> Moved:
        return Moved(f"{PATH}/sign-in")

    return [
        Route(f"{PATH}/sign-in", show, methods=["GET"]),
        Route(f"{PATH}/sign-in", sign_in, methods=["POST"]),
        _done(parts, f"{PATH}/sign-out", sign_out, ends=True),
    ]


async def _static(request: Request) -> Response:
    asset = assets().get(request.path_params["name"])
    if asset is None:
        return Response(status_code=404, headers=HEADERS)
    # Its address changes with its content.
    kept = {**HEADERS, "Cache-Control": "public, max-age=31536000, immutable"}
    return Response(asset.content, headers=kept, media_type=asset.content_type)


def _shown(parts: Parts, path: str, answer: Answer) -> Route:
    """A page, or only the part of it that changes."""

    async def respond(request: Request) -> Response:
        is_live = LIVE_HEADER in request.headers

        def work() -> Response:
            _refuse_nul(request)
            visitor = _visitor(parts, request)
            if visitor is None:
                asked = request.url.path + (f"?{request.url.query}" if request.url.query else "")
                return Response(status_code=401, headers=HEADERS) if is_live else _to_sign_in(asked)
            page = answer(parts, Visit(request.path_params, request.query_params, {}, visitor, _server(request)))
            assert isinstance(page, Page)
            page = _signed(page, visitor, request)
            return render_live(page, request.headers.get("if-none-match")) if is_live else render(page)

        return await _answered(work, parts)

    return Route(path, respond, methods=["GET"])


def _done(parts: Parts, path: str, answer: Answer, *, ends: bool = False) -> Route:
    """What a form does; `ends`: it ends the session, too."""

    async def respond(request: Request) -> Response:
        form = await _form(request, parts.limits)

        def work() -> Response:
            _refuse_nul(request)
            visitor = _visitor(parts, request)
            if visitor is None:
                return _to_sign_in(PATH)
            if not session.is_from_here(request.headers) or not session.is_proven(visitor, form.get("proof", "")):
                return render(views.problem("This form did not come from a page of yours: open it anew.", 403))
            done = answer(parts, Visit(request.path_params, request.query_params, form, visitor, _server(request)))
            if isinstance(done, Page):
                return render(_signed(done, visitor, request))
            headers = dict(HEADERS)
            if ends:
                with parts.pool.connection() as connection:
                    session.end(connection, parts.secret, request.cookies[session.COOKIE])
                headers["Set-Cookie"] = session.set_cookie("", request.headers, request.url.scheme)
            return RedirectResponse(done.to, 303, headers)

        return await _answered(work, parts)

    return Route(path, respond, methods=["POST"])


async def _answered(work: Callable[[], Response], parts: Parts) -> Response:
    """Work in a thread; problems become pages."""
    try:
        return await run_in_threadpool(work)
    except (NotFound, quarantine.UnknownHeld) as problem:
        return render(views.problem(str(problem), 404))
    except psycopg.OperationalError:
        return _unavailable(parts.limits)
    except ServerError as problem:
        return render(views.problem(str(problem), 409))


def _visitor(parts: Parts, request: Request) -> Session | None:
    with parts.pool.connection() as connection:
        return session.find(connection, parts.secret, request.cookies.get(session.COOKIE), parts.now())


def _signed(page: Page, visitor: Session, request: Request) -> Page:
    """Add what every page of a session shows."""
    common = {"session": visitor, "path": request.url.path, "done": views.done(request.query_params.get("done", ""))}
    return replace(page, values={**common, **page.values})


def _server(request: Request) -> str:
    return f"{'https' if session.is_tls(request.headers, request.url.scheme) else 'http'}://{request.url.netloc}"


def _to_sign_in(asked: str) -> Response:
    return RedirectResponse(f"{PATH}/sign-in?next={quote(asked, safe='/')}", 303, HEADERS)


def _unavailable(limits: Limits) -> Response:
    page = views.problem("The database does not answer. Sales go on into the devices' spools.", 503)
    return render(replace(page, headers={"Retry-After": str(limits.retry_after_s)}))


async def _form(request: Request, limits: Limits) -> dict[str, str]:
    """Read a form; empty for what is none. Raises BodyTooLarge and BodyStalled."""
    body = await read_body(request, FORM_BYTES_MAX, limits.body_stall_s)
    try:
        fields = parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=FORM_FIELDS_MAX, errors="strict")
    except ValueError:
        return {}
    return {} if b"\0" in body or b"%00" in body else dict(fields)


def _refuse_nul(request: Request) -> None:
    """No name or text of ours has it, and PostgreSQL takes none that has. Raises NotFound."""
    if any("\0" in text for text in (request.scope["path"], *request.query_params.values())):
        raise NotFound
