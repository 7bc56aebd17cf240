"""The operators' page, on a real socket and PostgreSQL: who gets in, what is shown, what its forms do."""

import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import psycopg
import pytest
from endpoints import DEADLINE_S, SECRET, Endpoints, bearer, outlaws, running, signed
from fleets import EPOCH, STATES, Shop, a_fleet, hear, hold_line, one_of_each, open_shops, report_of
from pis import Pi, enrolled
from psycopg_pool import ConnectionPool
from structlog.testing import capture_logs

from server import audit, tokens
from server.buckets.folder import FolderBucket
from server.condition import CONDITIONS
from server.pages import session
from server.pages.session import COOKIE, SESSION_HOURS, way_back

PAGES = ("/fleet", "/fleet/road", "/fleet/missing", "/fleet/refused", "/fleet/refused?ended=1", "/fleet/files")
PAYLOAD = b'{"customer":"Maria Santos","peso_value":1.5,}'
FORM = {"Content-Type": "application/x-www-form-urlencoded"}


@pytest.fixture
def server(pool: ConnectionPool, bucket: FolderBucket) -> Iterator[Endpoints]:
    """Run the endpoints."""
    with running(pool, bucket) as endpoints:
        yield endpoints


@contextmanager
def a_visitor(server: Endpoints) -> Iterator[httpx.Client]:
    """A browser without scripts that is not signed in. It follows no redirect by itself."""
    with httpx.Client(base_url=server.base_url, timeout=DEADLINE_S, trust_env=False) as client:
        yield client


@pytest.fixture
def operator(server: Endpoints) -> Iterator[httpx.Client]:
    """A browser that is signed in."""
    with a_visitor(server) as client:
        assert sign_in(client, server.service()).status_code == 303
        yield client


def sign_in(client: httpx.Client, token: str, **headers: str) -> httpx.Response:
    """Send the form."""
    return client.post("/fleet/sign-in", data={"token": token}, headers=headers)


def proof(client: httpx.Client) -> str:
    """What the session's pages put into their forms."""
    (found, *_) = re.findall(r'name="proof" value="([0-9a-f]{64})"', client.get("/fleet/files").text)
    return found


def send(client: httpx.Client, path: str, **fields: str) -> httpx.Response:
    """Send a form of a page."""
    return client.post(path, data={"proof": proof(client), **fields})


def landed(connection: psycopg.Connection) -> list[str]:
    """The payloads in bronze."""
    return [row[0] for row in connection.execute("select payload from scout_bronze.transactions_raw order by raw_id")]


def server_sees(wanted: Callable[[], bool]) -> None:
    """Wait until this holds: what pages show is kept for some seconds."""
    pause = threading.Event()
    for _ in range(DEADLINE_S * 10):
        if wanted():
            return
        pause.wait(0.1)
    raise AssertionError("it did not come to be seen")


# Signing in


def test_a_service_token_is_exchanged_for_a_cookie_that_tells_nothing(server: Endpoints):
    """The token itself is in no cookie, page or address."""
    token = server.service()
    with a_visitor(server) as client:
        answer = sign_in(client, token)
        cookie = answer.headers["set-cookie"]

        assert (answer.status_code, answer.headers["location"]) == (303, "/fleet")
        assert "HttpOnly; SameSite=Strict" in cookie
        assert f"Path=/fleet; Max-Age={SESSION_HOURS * 3600}" in cookie or f"Max-Age={SESSION_HOURS * 3600}" in cookie
        assert "Secure" not in cookie
        assert token not in cookie
        page = client.get("/fleet")
        assert page.status_code == 200
        assert token not in page.text


def test_behind_a_proxy_with_tls_the_cookie_is_for_tls_only(server: Endpoints):
    """Behind a proxy with TLS the cookie is for TLS only."""
    with a_visitor(server) as client:
        answer = sign_in(client, server.service(), **{"X-Forwarded-Proto": "https"})

    assert answer.headers["set-cookie"].endswith("; Secure")


def test_no_other_token_gets_in(server: Endpoints):
    """A device's token, even a good one, and every token that opens nothing."""
    refused = {name: token or "" for name, token in outlaws(server).items()} | {"device": server.device("pi-08")}
    statuses = {}
    for name, token in refused.items():
        with a_visitor(server) as client:
            answer = sign_in(client, token)
            statuses[name] = answer.status_code
            assert "set-cookie" not in answer.headers, name
            assert not token or token not in answer.text, name

    assert set(statuses.values()) <= {401, 403, 429}
    assert statuses["device"] in (403, 429)


def test_a_device_is_told_what_token_is_wanted(server: Endpoints):
    """An operator who takes the wrong token reads which is the right one."""
    with a_visitor(server) as client:
        answer = sign_in(client, server.device())

    assert answer.status_code == 403
    assert "scout-server tokens issue --role service_role" in answer.text


def test_supabases_own_service_key_gets_in(server: Endpoints):
    """It has neither a subject nor an id."""
    at = int(server.clock.at.timestamp())
    with a_visitor(server) as client:
        sign_in(client, signed({"role": "service_role", "iat": at, "exp": at + 86_400 * 3650}))

        assert client.get("/fleet").status_code == 200


def test_a_revoked_token_ends_its_sessions_on_the_next_request(server: Endpoints, operator: httpx.Client):
    """A revoked token ends its sessions on the next request."""
    assert operator.get("/fleet").status_code == 200

    server.rows("update scout_edge.tokens set revoked_at = now() where role = 'service_role' returning 1")

    assert operator.get("/fleet").status_code == 303


def test_a_session_ends_with_the_working_day(server: Endpoints, operator: httpx.Client):
    """And the next sign-in forgets it."""
    server.clock.at += server.clock.at.resolution + (3600 * SESSION_HOURS) * 1_000_000 * server.clock.at.resolution

    assert operator.get("/fleet").status_code == 303
    with a_visitor(server) as client:
        sign_in(client, server.service())
    assert server.rows("select count(*) from scout_edge.page_sessions") == [(1,)]


def test_another_jwt_secret_ends_all_sessions(server: Endpoints, operator: httpx.Client):
    """Whoever changed the secret wants everybody out."""
    cookie = operator.cookies[COOKIE]
    with server.pool.connection() as connection:
        assert session.find(connection, SECRET, cookie, server.clock.at)
        assert session.find(connection, SECRET + "-changed", cookie, server.clock.at) is None


def test_a_cookie_that_is_made_up_costs_no_query(server: Endpoints):
    """Whoever floods the page with them takes nothing from the devices."""
    for cookie in ("", ".", "a.b", "x" * 43 + "." + "0" * 32, "é"):
        with pytest.MonkeyPatch.context() as patched, server.pool.connection() as connection:
            patched.setattr(psycopg.Connection, "execute", None)
            assert session.find(connection, SECRET, cookie, server.clock.at) is None


def test_signing_out_ends_the_session_wherever_the_cookie_lies(server: Endpoints, operator: httpx.Client):
    """A copy of the cookie is worth nothing afterwards."""
    copied = operator.cookies[COOKIE]

    assert send(operator, "/fleet/sign-out").headers["location"] == "/fleet/sign-in"

    assert COOKIE not in operator.cookies
    with a_visitor(server) as client:
        client.cookies.set(COOKIE, copied, path="/fleet")
        assert client.get("/fleet").status_code == 303


def test_who_tries_wrong_tokens_is_made_to_wait_and_nobody_else(server: Endpoints):
    """Behind a proxy all have one address: a good token is let in whatever others tried."""
    with a_visitor(server) as client:
        statuses = [sign_in(client, f"wrong-{number}").status_code for number in range(12)]
        last = sign_in(client, "wrong")

        assert statuses == [401] * 10 + [429] * 2
        assert 0 < int(last.headers["retry-after"]) <= 600
        assert sign_in(client, server.service()).status_code == 303


def test_no_token_is_logged(server: Endpoints):
    """Neither a good one nor a wrong one."""
    good = server.service()
    with capture_logs() as logs, a_visitor(server) as client:
        sign_in(client, good)
        sign_in(client, "a-wrong-token")
        client.get("/fleet")

    assert {"signed_in", "sign_in_refused"} <= {entry["event"] for entry in logs}
    assert good not in str(logs)
    assert "a-wrong-token" not in str(logs)


@pytest.mark.parametrize(
    "asked",
    [
        "https://evil.example",
        "//evil.example",
        "/\\evil.example",
        "/fleetevil",
        "/ingest-transaction",
        "javascript:alert(1)",
        "/fleet\\@evil.example",
        "/fleet\r\nSet-Cookie: a=b",
        "",
        "/fleet/\u202e",
    ],
)
def test_signing_in_leads_to_a_page_of_ours_only(server: Endpoints, asked: str):
    """No link sends an operator elsewhere with a fresh session."""
    with a_visitor(server) as client:
        answer = client.post("/fleet/sign-in", data={"token": server.service(), "next": asked})

    assert answer.headers["location"] == "/fleet"


def test_who_was_on_the_way_to_a_page_arrives_there(server: Endpoints):
    """Who was on the way to a page arrives there after signing in."""
    with a_visitor(server) as client:
        sent = client.get("/fleet?state=silent&page=2")
        (back,) = parse_qs(urlsplit(sent.headers["location"]).query)["next"]
        answer = client.post("/fleet/sign-in", data={"token": server.service(), "next": back})

    assert sent.headers["location"].startswith("/fleet/sign-in?next=")
    assert answer.headers["location"] == "/fleet?state=silent&page=2" == way_back(back)


# Who is not signed in, and forgeries


@pytest.mark.parametrize("path", [*PAGES, "/fleet/devices/pi-05", "/fleet/refused/1", "/fleet/nowhere"])
def test_nothing_is_shown_to_who_is_not_signed_in(server: Endpoints, path: str):
    """A device's or a service's token in a header is no session either."""
    server.device("pi-05")
    with a_visitor(server) as client:
        answer = client.get(path, headers=bearer(server.service()))
        live = client.get(path, headers={"X-Scout-Live": "1"})

    assert (answer.status_code, answer.text) == (303, "")
    assert (live.status_code, live.text) == (401, "")


@pytest.mark.parametrize(
    ("fields", "headers"),
    [
        ({}, {}),
        ({"proof": "0" * 64}, {}),
        ({"proof": "é"}, {}),
        ({"proof": None}, {"Sec-Fetch-Site": "cross-site"}),
        ({"proof": None}, {"Sec-Fetch-Site": "same-site"}),
        ({"proof": None}, {"Origin": "https://evil.example"}),
        ({"proof": None}, {"Origin": "null"}),
    ],
)
def test_a_form_that_no_page_of_the_session_made_does_nothing(
    server: Endpoints, operator: httpx.Client, fields: dict[str, Any], headers: dict[str, str]
):
    """None stands for the good proof: then only where it came from is wrong."""
    server.device("pi-05")
    good = proof(operator)
    form = {name: value or good for name, value in fields.items()}

    answer = operator.post("/fleet/devices/pi-05/revoke", data=form, headers=headers)

    assert answer.status_code == 403
    assert server.rows("select revoked_at from scout_edge.devices") == [(None,)]


def test_the_proof_of_one_session_is_none_in_another(server: Endpoints, operator: httpx.Client):
    """The proof of one session is none in another."""
    server.device("pi-05")
    with a_visitor(server) as other:
        sign_in(other, server.service())
        answer = other.post("/fleet/devices/pi-05/revoke", data={"proof": proof(operator)})

    assert answer.status_code == 403


def test_a_form_from_a_page_of_ours_is_taken_however_the_browser_says_so(server: Endpoints, operator: httpx.Client):
    """Over plain HTTP in an office a browser names its origin; over TLS it says what it is."""
    server.device("pi-05")
    good = {"proof": proof(operator)}

    for headers in (
        {"Origin": server.base_url},
        {"Sec-Fetch-Site": "same-origin", "Origin": "https://outside.example"},
    ):
        assert operator.post("/fleet/devices/pi-05/revoke", data=good, headers=headers).status_code == 303


def test_another_site_can_sign_nobody_in(server: Endpoints):
    """Whoever is signed in as somebody else unawares does that one's work."""
    with a_visitor(server) as client:
        answer = sign_in(client, server.service(), **{"Sec-Fetch-Site": "cross-site"})

    assert (answer.status_code, "set-cookie" in answer.headers) == (403, False)


def test_every_answer_tells_the_browser_to_trust_nothing_else(operator: httpx.Client):
    """No other host, no frame, no cache; and no page holds what the browser would have to refuse."""
    for path in (*PAGES, "/fleet/sign-in", "/fleet/nowhere"):
        answer = operator.get(path)
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert not re.search(r"<script>|<style|\sstyle=|\son\w+=|https?://", answer.text), path


# What is shown


@pytest.mark.parametrize("devices", [0, 1, 300])
def test_every_page_renders_for_any_number_of_devices(
    operator: httpx.Client, connection: psycopg.Connection, devices: int
):
    """With scripts and without."""
    shops = list(a_fleet(devices))
    open_shops(connection, shops, history_of=1)

    for path in (*PAGES, *(f"/fleet/devices/{shop.device_id}" for shop in shops[:14])):
        assert operator.get(path).status_code == 200, path
        assert operator.get(path, headers={"X-Scout-Live": "1"}).status_code == 200, path
    assert f"of {devices} devices" in operator.get("/fleet").text


def test_each_state_can_be_filtered_by_and_shows_its_device(operator: httpx.Client, connection: psycopg.Connection):
    """Each state can be filtered by and shows its device, with what to do about it."""
    open_shops(connection, one_of_each())

    for state in STATES:
        assert f'href="/fleet/devices/pi-{state}"' in operator.get("/fleet", params={"state": state}).text
    for condition in CONDITIONS:
        text = operator.get(f"/fleet/devices/pi-{condition.name}").text
        assert condition.advice.replace("'", "&#39;") in text


def test_what_needs_somebody_comes_first(operator: httpx.Client, connection: psycopg.Connection):
    """What needs somebody comes first, and who is shut out last."""
    open_shops(connection, one_of_each())

    shown = re.findall(r'id="row-pi-([a-z-]+)"', operator.get("/fleet").text)

    assert shown == [condition.name for condition in CONDITIONS if condition.level in ("bad", "warn")] + [
        condition.name for condition in CONDITIONS if condition.level == "calm"
    ] + ["well"]


def test_devices_are_found_by_name_sorted_and_paged(operator: httpx.Client, connection: psycopg.Connection):
    """Devices are found by part of their name, sorted, and shown fifty at a time."""
    open_shops(connection, [Shop(f"pi-{number:03d}", waiting=number) for number in range(120)])

    def shown(**query: Any) -> list[str]:
        return re.findall(r'id="row-pi-(\d+)"', operator.get("/fleet", params=query).text)

    assert shown(q="PI-11") == [f"{number}" for number in range(110, 120)]
    assert shown(sort="backlog")[:3] == ["119", "118", "117"]
    assert [len(shown(page=page)) for page in (1, 2, 3, 9)] == [50, 50, 20, 20]
    assert len(set(shown(page=1) + shown(page=2) + shown(page=3))) == 120


@pytest.mark.parametrize(
    "query", ["state=x'", "sort=<b>", "page=-1", "page=99999999999999999999", "page=²", "q=%F0%9F", "page="]
)
def test_no_address_breaks_the_overview(operator: httpx.Client, query: str):
    """What makes no sense in an address is passed over."""
    assert operator.get(f"/fleet?{query}").status_code == 200


HOSTILE: dict[str, Any] = {
    "text where numbers are": {
        "waiting_rows": "<b>7</b>",
        "disk_free_bytes": "0",
        "spool_bytes": [],
        "set_aside_rows": {},
    },
    "numbers where text is": {"version": 1.5e300, "sent_at": 17, "token_expires_at": [], "oldest_unsettled_at": True},
    "huge numbers": {
        "waiting_rows": 10**400,
        "accepted_rows": -(10**400),
        "disk_free_bytes": 1e308,
        "spool_bytes": 0.1,
    },
    "markup": {"version": "</td><script>alert(1)</script>", "clock": '"><img src=x onerror=alert(1)>'},
    "far times": {"sent_at": "9999-12-31T23:59:59Z", "oldest_unsettled_at": "0001-01-01T00:00:00Z"},
    "farther times": {"token_expires_at": "0001-01-01T00:00:00+23:59", "sent_at": "0001-01-01T00:00:00+14:00"},
    "nulls": dict.fromkeys(("version", "sent_at", "waiting_rows", "clock", "epochs", "token_expires_at")),
    "direction": {"version": "\u202e0.1.0\u0007\n", "clock": "{{ 7 * 7 }}"},
    "long": {"version": "x" * 500_000, "clock": "y" * 200_000},
}


@pytest.mark.parametrize("name", HOSTILE)
def test_no_report_breaks_or_enters_a_page(operator: httpx.Client, connection: psycopg.Connection, name: str):
    """A device controls its report: the page shows it as text, or not at all."""
    shop = Shop("pi-05")
    open_shops(connection, [shop, Shop("pi-06", waiting=3)])
    report = report_of(shop, 1.8e9) | HOSTILE[name]
    hear(connection, "pi-05", report)
    connection.execute(
        "insert into scout_edge.heartbeat_history select device_id, date_trunc('hour', now()), now(), report"
        " from scout_edge.heartbeats where device_id = 'pi-05'"
    )

    for path in ("/fleet", "/fleet/devices/pi-05", "/fleet/road"):
        answer = operator.get(path)
        assert answer.status_code == 200, path
        assert "<script>alert" not in answer.text
        assert "<img src=x" not in answer.text
        assert "\u202e" not in answer.text
        assert len(answer.text) < 200_000
    assert "pi-06" in operator.get("/fleet").text


def test_a_report_that_is_no_object_breaks_nothing(operator: httpx.Client, connection: psycopg.Connection):
    """The database refuses such a report; one that got there by hand is no reason for an empty page."""
    open_shops(connection, [Shop("pi-05"), Shop("pi-06")])
    for report in ([], "x", 7, None):
        hear(connection, "pi-05", report)
        assert operator.get("/fleet/devices/pi-05").status_code == 200


def test_a_payload_is_on_the_page_of_its_own_line_alone(operator: httpx.Client, connection: psycopg.Connection):
    """And whoever asked for it is in the log."""
    open_shops(connection, [Shop("pi-05")])
    number = hold_line(connection, "pi-05", PAYLOAD)

    for path in (*PAGES, "/fleet/devices/pi-05"):
        assert "Maria" not in operator.get(path).text, path
    with capture_logs() as logs:
        assert "Maria Santos" in operator.get(f"/fleet/refused/{number}").text
    shown = [entry for entry in logs if entry["event"] == "held_line_shown"]
    assert [(entry["number"], entry["by"]) for entry in shown] == [(number, "operator")]
    assert "Maria" not in str(logs)


@pytest.mark.parametrize(
    "raw", [b"</textarea><script>alert(1)</script>", b"\xff\xfe{", b"\r\n{}", b"{\0}", b"x" * 70_000]
)
def test_no_held_line_breaks_or_enters_its_page(operator: httpx.Client, connection: psycopg.Connection, raw: bytes):
    """What can't be carried by a form is shown, and mended elsewhere."""
    open_shops(connection, [Shop("pi-05")])
    answer = operator.get(f"/fleet/refused/{hold_line(connection, 'pi-05', raw)}")

    assert answer.status_code == 200
    assert "<script>alert" not in answer.text


@pytest.mark.parametrize(
    "path",
    [
        "/fleet/devices/%00",
        "/fleet/refused?device=%00",
        "/fleet/devices/pi-99",
        "/fleet/devices/%3Cb%3E",
        "/fleet/refused/99",
        f"/fleet/refused/{10**30}",
        "/fleet/a/b",
    ],
)
def test_what_is_not_there_is_a_page_that_says_so(operator: httpx.Client, path: str):
    """What is not there is a page that says so."""
    answer = operator.get(path)

    assert answer.status_code == 404
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert "<b>" not in answer.text.replace("</b>", "").partition("<h1>")[2].partition("</section>")[0]


def test_what_did_not_change_is_not_sent_again(operator: httpx.Client, connection: psycopg.Connection):
    """What did not change is not sent again, and what did is."""
    open_shops(connection, [Shop("pi-05", heard_s=7200.0)])
    live = {"X-Scout-Live": "1"}
    mark = operator.get("/fleet/devices/pi-05", headers=live).headers["etag"]

    same = operator.get("/fleet/devices/pi-05", headers=live | {"If-None-Match": mark})
    hear(connection, "pi-05", report_of(Shop("pi-05", waiting=77), 1.8e9))
    other = operator.get("/fleet/devices/pi-05", headers=live | {"If-None-Match": mark})

    assert (same.status_code, same.content) == (304, b"")
    assert other.status_code == 200
    assert ">77<" in other.text


def test_a_page_costs_the_same_for_three_hundred_devices_as_for_one(
    operator: httpx.Client, connection: psycopg.Connection
):
    """Each page asks a fixed number of queries; one of them is whose session it is."""
    asked: list[str] = []
    original = psycopg.Connection.execute

    def counted(self: psycopg.Connection, query: Any, *rest: Any, **named: Any) -> Any:
        asked.append(str(query))
        return original(self, query, *rest, **named)

    def queries(path: str) -> int:
        asked.clear()
        assert operator.get(path).status_code == 200
        return len(asked)

    open_shops(connection, [Shop("aa-first")])
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(psycopg.Connection, "execute", counted)
        few = {path: queries(path) for path in (*PAGES, "/fleet/devices/aa-first")}
        open_shops(connection, list(a_fleet(300)))
        many = {path: queries(path) for path in (*PAGES, "/fleet/devices/aa-first")}

    assert all(many[path] <= few[path] + 1 for path in few)
    assert max(many.values()) < 12


# What forms do


def test_a_device_is_shut_out_and_let_in_again(operator: httpx.Client, server: Endpoints):
    """On its next request; and the log says by whom."""
    token = server.device("pi-05")
    post = {"content": b'{"a":1}', "headers": bearer(token) | {"Content-Type": "application/json"}}

    with capture_logs() as logs:
        revoked = send(operator, "/fleet/devices/pi-05/revoke")
        refused = server.client.post("/ingest-transaction", **post)
        restored = send(operator, "/fleet/devices/pi-05/restore")
        taken = server.client.post("/ingest-transaction", **post)

    assert (revoked.headers["location"], refused.status_code) == ("/fleet/devices/pi-05?done=revoke", 403)
    assert (restored.headers["location"], taken.status_code) == ("/fleet/devices/pi-05?done=restore", 200)
    changed = [entry for entry in logs if entry["event"] == "device_changed"]
    assert [(entry["action"], entry["by"]) for entry in changed] == [("revoke", "operator"), ("restore", "operator")]
    assert "shut out from now on" in operator.get(revoked.headers["location"]).text


def test_the_tokens_of_a_device_are_shut_out_at_once(operator: httpx.Client, server: Endpoints):
    """And one that is issued afterwards is good."""
    token = server.device("pi-05")
    post = {"content": b'{"a":1}', "headers": bearer(token) | {"Content-Type": "application/json"}}

    send(operator, "/fleet/devices/pi-05/rotate-at-once")

    assert server.client.post("/ingest-transaction", **post).status_code == 401
    with server.pool.connection() as connection:
        server.clock.at += server.clock.at.resolution * 2_000_000
        later = tokens.issue(connection, SECRET, "pi-05", tokens.EDGE_UPLOADER, days=1, now=server.clock.at)
    post["headers"] = bearer(later) | {"Content-Type": "application/json"}
    assert server.client.post("/ingest-transaction", **post).status_code == 200


def code_on(answer: httpx.Response) -> str:
    """The code that a page shows."""
    assert answer.status_code == 200, answer.text
    (found,) = re.findall(r'<p class="secret">([0-9A-Z-]+)</p>', answer.text)
    return found


def test_a_code_from_the_page_lets_a_new_device_in(operator: httpx.Client, server: Endpoints):
    """It is shown once, with the command to type, and is in no log and no address."""
    with capture_logs() as logs:
        answer = send(operator, "/fleet/devices", device_id=" pi-new ")
        code = code_on(answer)
        token = Pi(server.client, "pi-new").enrol(code)
    taken = server.client.post("/rest/v1/rpc/heartbeat", json={"nonce": "n"}, headers=bearer(token))

    assert taken.status_code == 200
    assert f"sudo scout-agent enrol --server {server.base_url} --code {code}" in answer.text
    assert answer.headers["cache-control"] == "no-store"
    assert code not in str(logs)
    assert code not in operator.get("/fleet/devices/pi-new").text
    assert "renews itself" in operator.get("/fleet/devices/pi-new").text


def test_a_code_for_a_revoked_device_says_what_it_does(operator: httpx.Client, server: Endpoints):
    """So a new Pi takes the name of a stolen one."""
    pi, _ = enrolled(server)
    send(operator, "/fleet/devices/pi-05/revoke")

    answer = send(operator, "/fleet/devices/pi-05/code")
    Pi(server.client).enrol(code_on(answer))

    assert "pi-05 is revoked: whoever uses this code lets it in again" in answer.text
    assert pi.ask_to_renew().status_code == 401
    assert server.rows("select revoked_at from scout_edge.devices") == [(None,)]


@pytest.mark.parametrize("name", ["", "Pi 05", "../x", "a" * 64, "<b>"])
def test_what_can_not_name_a_device_gets_no_code(operator: httpx.Client, server: Endpoints, name: str):
    """What can't name a device gets no code, and is told why."""
    answer = send(operator, "/fleet/devices", device_id=name)

    assert answer.status_code == 409
    assert "<b>" not in answer.text
    assert server.rows("select count(*) from scout_edge.devices") == [(0,)]


def test_a_device_with_a_key_is_asked_to_renew_its_token(operator: httpx.Client, server: Endpoints):
    """What it has counts until then; one without a key can't be asked."""
    _, token = enrolled(server)
    server.device("pi-06")

    send(operator, "/fleet/devices/pi-05/rotate")

    reply = server.client.post("/rest/v1/rpc/heartbeat", json={"nonce": "n"}, headers=bearer(token))
    assert (reply.status_code, reply.json()["renew_token"]) == (200, True)
    assert 'action="/fleet/devices/pi-05/rotate"' in operator.get("/fleet/devices/pi-05").text
    assert 'action="/fleet/devices/pi-06/rotate"' not in operator.get("/fleet/devices/pi-06").text


def test_held_renewals_are_the_first_thing_to_be_seen(operator: httpx.Client, connection: psycopg.Connection):
    """After a restore nobody renews until an operator has looked at who is revoked."""
    assert "confirm-revoked" not in operator.get("/fleet").text
    connection.execute("update scout_edge.settings set renewals_held_since = now()")

    server_sees(lambda: "confirm-revoked" in operator.get("/fleet").text)


def test_the_road_page_tells_of_the_last_backup(operator: httpx.Client, connection: psycopg.Connection):
    """Or that there was none."""
    assert "None was made yet" in operator.get("/fleet/road").text
    connection.execute("update scout_edge.settings set backed_up_at = '2026-01-21 02:30:00+00'")

    server_sees(lambda: "complete 2026-01-21 02:30" in operator.get("/fleet/road").text)


def test_accepted_gaps_are_missing_no_more(operator: httpx.Client, connection: psycopg.Connection):
    """An operator closed them, and said why."""
    open_shops(connection, [Shop("pi-05", missing=17)])
    audit.accept_gap(connection, "pi-05", EPOCH, (1, 17), "the card is gone")

    assert "No sale is missing." in operator.get("/fleet/missing").text


@pytest.mark.parametrize(
    "path",
    [
        "/fleet/devices/pi-99/revoke",
        "/fleet/devices/pi-99/rotate",
        "/fleet/devices/pi-05/explode",
        "/fleet/refused/9/replay",
    ],
)
def test_what_can_not_be_done_says_so(operator: httpx.Client, server: Endpoints, path: str):
    """What can't be done says so on a page."""
    server.device("pi-05")

    answer = send(operator, path)

    assert answer.status_code in (404, 409)
    assert 'role="alert"' in answer.text


def test_a_held_line_is_replayed_mended(operator: httpx.Client, connection: psycopg.Connection):
    """What is typed into the form is taken, once, and what came is kept."""
    open_shops(connection, [Shop("pi-05")])
    number = hold_line(connection, "pi-05", PAYLOAD)

    still = send(operator, f"/fleet/refused/{number}/replay")
    done = send(operator, f"/fleet/refused/{number}/replay", edited='{"peso_value":1.50}\r\n')
    again = send(operator, f"/fleet/refused/{number}/replay", edited='{"peso_value":1.50}')

    assert (still.status_code, done.status_code, again.status_code) == (409, 303, 409)
    assert "Maria" not in still.text
    assert done.headers["location"] == "/fleet/refused?done=replayed"
    assert landed(connection) == ['{"peso_value":1.50}']
    assert connection.execute("select raw from scout_bronze.quarantine").fetchall() == [(PAYLOAD,)]
    assert f"No. {number}" not in operator.get("/fleet/refused").text


def test_an_unchanged_line_is_replayed_as_it_was(operator: httpx.Client, connection: psycopg.Connection):
    """Nothing is kept beside it then."""
    open_shops(connection, [Shop("pi-05")])
    number = hold_line(connection, "pi-05", b'{"n":\n1}')

    done = send(operator, f"/fleet/refused/{number}/replay", edited='{"n":\r\n1}')

    assert done.status_code == 303
    assert connection.execute("select outcome, edited from scout_bronze.quarantine").fetchall() == [("replayed", None)]


def test_a_held_line_is_discarded_with_a_reason(operator: httpx.Client, connection: psycopg.Connection):
    """Without one nothing is done."""
    open_shops(connection, [Shop("pi-05")])
    number = hold_line(connection, "pi-05", PAYLOAD)

    without = send(operator, f"/fleet/refused/{number}/discard", why="  ")
    done = send(operator, f"/fleet/refused/{number}/discard", why="a <b>test</b> sale")

    assert (without.status_code, done.status_code) == (409, 303)
    assert "a &lt;b&gt;test&lt;/b&gt; sale" in operator.get("/fleet/refused?ended=1").text


def test_a_form_that_is_none_does_nothing(operator: httpx.Client, server: Endpoints):
    """Rubbish, too many fields, too much."""
    server.device("pi-05")
    good = proof(operator).encode()
    for body in (
        b"\xff\xfe",
        b"a=%ff",
        b"proof=" + good + b"&why=%00",
        b"proof=" + good + b"&why=\0",
        b"&".join(b"a=1" for _ in range(50)),
        b"a=" + b"1" * 2_000_000,
    ):
        answer = operator.post("/fleet/devices/pi-05/revoke", content=body, headers=FORM)
        assert answer.status_code in (403, 413)
    assert server.rows("select revoked_at from scout_edge.devices") == [(None,)]


def test_without_its_database_the_page_says_so(
    operator: httpx.Client, connection: psycopg.Connection, postgres_url: str
):
    """Without its database the page says so, and when to come back."""
    name = connection.info.dbname
    with psycopg.connect(postgres_url, autocommit=True) as other:
        other.execute(f'alter database "{name}" allow_connections false'.encode())
        other.execute("select pg_terminate_backend(pid) from pg_stat_activity where datname = %s", [name])
        try:
            answer = operator.get("/fleet")
        finally:
            other.execute(f'alter database "{name}" allow_connections true'.encode())

    assert answer.status_code == 503
    assert answer.headers["retry-after"] == "5"
    assert "does not answer" in answer.text
