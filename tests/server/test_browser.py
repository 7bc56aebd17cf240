"""The operators' page in a real browser: by keyboard alone, live, on a phone and on a desk, light and dark.

SCOUT_TEST_SCREENSHOTS names a folder for pictures of every page.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from browser import ENTER, SPACE, Browser, a_browser
from endpoints import Endpoints, running
from fleets import Shop, a_fleet, hear, hold_line, open_shops, report_of
from psycopg_pool import ConnectionPool

from server.buckets.folder import FolderBucket

pytestmark = pytest.mark.browser

PHONE, DESK = (360, 780), (1440, 900)
SCREENS = {
    "phone-light": (*PHONE, "light"),
    "phone-dark": (*PHONE, "dark"),
    "desk-light": (*DESK, "light"),
    "desk-dark": (*DESK, "dark"),
}
LAST_MARK = "window.marked = true"
"""A page that was loaded anew would not know it any more."""


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """Start a browser for all of them."""
    with a_browser() as browser:
        yield browser


@pytest.fixture
def browser(chromium: Browser, server: Endpoints) -> Iterator[Browser]:
    """A browser that nobody is signed in with; whatever it complains of fails the test."""
    chromium.looks(*DESK, "light")
    chromium.open(f"{server.base_url}/fleet/sign-in")
    chromium.forget()
    chromium.complaints()
    yield chromium
    assert chromium.complaints() == []


@pytest.fixture
def server(pool: ConnectionPool, bucket: FolderBucket) -> Iterator[Endpoints]:
    """Run the endpoints."""
    with running(pool, bucket) as endpoints:
        yield endpoints


def sign_in(browser: Browser, server: Endpoints, path: str = "/fleet") -> None:
    """By keyboard: the field has the focus already."""
    browser.open(server.base_url + path)
    browser.wait("return document.activeElement.id === 'token'")
    browser.press(server.service())
    browser.press(ENTER)
    browser.wait("return location.pathname + location.search === arguments[0]", path)


def test_an_operator_needs_no_mouse(browser: Browser, server: Endpoints, connection: psycopg.Connection):
    """Sign in, filter, open a device, replay a line that was refused, discard one, sign out: by keyboard alone."""
    open_shops(connection, [*a_fleet(60), Shop("pi-zz", waiting=4)])
    connection.execute("delete from scout_bronze.quarantine")
    good, bad = hold_line(connection, "pi-zz", b'{"peso_value":12.50}'), hold_line(connection, "pi-zz", b"{")

    sign_in(browser, server)
    browser.tab_to("q")
    browser.press(f"zz{ENTER}")
    browser.wait("return location.search.includes('q=zz')")
    assert browser.run("return document.querySelectorAll('.devices tbody tr').length") == 1
    browser.tab_to("pi-zz")
    browser.press(ENTER)
    browser.wait("return document.querySelector('h1').innerText === 'pi-zz'")
    browser.tab_to(f"Replay number {good}")
    browser.press(ENTER)
    browser.wait("return document.querySelector('.notice.good')?.innerText.includes('in bronze now')")
    assert connection.execute("select payload from scout_bronze.transactions_raw").fetchall() == [
        ('{"peso_value":12.50}',)
    ]
    browser.tab_to(f"Discard number {bad}")
    browser.press(SPACE)
    browser.tab_to("why")
    browser.press(f"torn by a power cut{ENTER}")
    browser.wait("return document.body.innerText.includes('Nothing waits for a decision')")
    browser.tab_to("Sign out")
    browser.press(ENTER)
    browser.wait("return location.pathname === '/fleet/sign-in'")
    browser.open(f"{server.base_url}/fleet")
    assert browser.path().startswith("/fleet/sign-in")


def test_a_device_is_revoked_and_let_in_again_by_keyboard(
    browser: Browser, server: Endpoints, connection: psycopg.Connection
):
    """Each is asked once more before it is done."""
    open_shops(connection, [Shop("pi-05")])
    sign_in(browser, server, "/fleet/devices/pi-05")

    for opens, does, state in (
        ("Revoke the device…", "Revoke pi-05", "revoked"),
        ("Let it in again…", "Let pi-05 in again", "well"),
    ):
        browser.tab_to(opens)
        browser.press(ENTER)
        browser.tab_to(does)
        browser.press(ENTER)
        browser.wait("return document.querySelector('.advice .badge')?.innerText === arguments[0]", state)


def test_a_device_is_let_in_by_keyboard(browser: Browser, server: Endpoints):
    """The code stays on the screen: that page does not ask for itself again."""
    browser.looks(*PHONE, "light")
    sign_in(browser, server)
    browser.tab_to("Let a device in…")
    browser.press(ENTER)
    browser.tab_to("device_id")
    browser.press(f"pi-new{ENTER}")
    code = browser.wait("return document.querySelector('.secret')?.innerText")

    assert code in browser.run("return document.querySelector('pre').innerText")
    assert not browser.is_wider_than_its_screen()
    keep_picture(browser, "phone-light", "code")
    assert browser.run("return document.getElementById('fresh').textContent") == ""


def test_what_changes_arrives_without_a_reload(browser: Browser, server: Endpoints, connection: psycopg.Connection):
    """And what the operator typed, opened and reached with the keyboard stays as it was."""
    open_shops(connection, [Shop("pi-05", waiting=1), Shop("pi-06")])
    sign_in(browser, server)
    browser.run(LAST_MARK)
    browser.tab_to("q")
    browser.press("half a na")

    hear(connection, "pi-06", report_of(Shop("pi-06", waiting=4711), 1.8e9))
    browser.wait("return document.getElementById('row-pi-06').innerText.includes('4,711')")

    assert browser.run("return window.marked && document.activeElement.id") == "q"
    assert browser.run("return document.getElementById('q').value") == "half a na"

    browser.open(f"{server.base_url}/fleet/devices/pi-05")
    browser.run(LAST_MARK)
    browser.tab_to("Revoke the device…")
    browser.press(ENTER)
    hear(connection, "pi-05", report_of(Shop("pi-05", waiting=815, missing=1), 1.8e9))
    browser.wait("return document.querySelector('.facts').innerText.includes('815')")

    assert browser.run("return window.marked && document.activeElement.innerText") == "Revoke the device…"
    assert browser.run("return document.activeElement.parentElement.open") is True


def test_rows_that_change_places_keep_the_focus(browser: Browser, server: Endpoints, connection: psycopg.Connection):
    """A device that becomes urgent moves up, and the one that was reached stays reached."""
    open_shops(connection, [Shop("pi-05"), Shop("pi-06"), Shop("pi-07")])
    sign_in(browser, server)
    browser.tab_to("pi-07")

    hear(connection, "pi-07", report_of(Shop("pi-07", waiting=9, oldest_s=5e5), 1.8e9))
    browser.wait("return document.querySelector('.devices tbody tr').id === 'row-pi-07'")

    assert browser.run("return document.activeElement.innerText") == "pi-07"
    assert browser.run("return document.querySelectorAll('.devices tbody tr').length") == 3


def test_a_server_that_is_gone_is_said_to_be(
    chromium: Browser, pool: ConnectionPool, bucket: FolderBucket, connection: psycopg.Connection
):
    """What is shown is old then, and says from when it is."""
    open_shops(connection, [Shop("pi-05")])
    with running(pool, bucket) as server:
        chromium.looks(*DESK, "light")
        sign_in(chromium, server)
    chromium.run("Date.now = ((now) => () => now() + 60000)(Date.now)")

    chromium.wait("return !document.getElementById('stale').hidden")

    assert "The server does not answer. What you see is from" in chromium.text()
    assert "pi-05" in chromium.text()
    chromium.complaints()  # that nobody listens is what it complains of


def test_who_is_no_longer_signed_in_is_asked_to(browser: Browser, server: Endpoints, connection: psycopg.Connection):
    """A page that stays open overnight shows nothing any more, and says where to sign in."""
    open_shops(connection, [Shop("pi-05")])
    sign_in(browser, server)

    connection.execute("delete from scout_edge.page_sessions")

    browser.wait("return location.pathname === '/fleet/sign-in'")
    assert "pi-05" not in browser.text()
    # The one answer of 401 by which the page heard of it.
    assert [line for line in browser.complaints() if "401" not in line] == []


@pytest.mark.parametrize("screen", SCREENS)
def test_every_page_fits_every_screen(browser: Browser, server: Endpoints, connection: psycopg.Connection, screen: str):
    """Three hundred devices in all states; no page is wider than its screen, and none complains."""
    shops = list(a_fleet(300))
    open_shops(connection, shops, history_of=15)
    browser.looks(*SCREENS[screen])
    keep_picture(browser, screen, "sign-in")
    sign_in(browser, server)
    named = {
        "devices": "/fleet",
        "attention": "/fleet?state=attention&sort=oldest",
        "nobody": "/fleet?q=nobody",
        "road": "/fleet/road",
        "missing": "/fleet/missing",
        "refused": "/fleet/refused",
        "line": "/fleet/refused/1",
        "files": "/fleet/files",
        "not-here": "/fleet/devices/nobody",
    }
    of_states = {f"device-{number:02d}": f"/fleet/devices/{shop.device_id}" for number, shop in enumerate(shops[:15])}
    for name, path in (named | of_states).items():
        browser.open(server.base_url + path)
        keep_picture(browser, screen, name)
        assert not browser.is_wider_than_its_screen(), name
        assert browser.too_faint() == [], name
    assert [line for line in browser.complaints() if "404" not in line] == []


def keep_picture(browser: Browser, screen: str, name: str) -> None:
    """Save the page, where pictures are wanted."""
    folder = os.environ.get("SCOUT_TEST_SCREENSHOTS")
    if folder:
        Path(folder).mkdir(parents=True, exist_ok=True)
        browser.shot(Path(folder) / f"{name}-{screen}.png", whole=True)
