"""How a device stands, from what it reported: whatever that is."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from fleets import DAY_S, STATES, Shop, report_of

from server.condition import CONDITIONS, Device, Trouble, conditions, instant

AT = datetime(2026, 1, 20, 8, 30, tzinfo=UTC)

REPORTED = (
    "version",
    "clock",
    "sent_at",
    "oldest_unsettled_at",
    "waiting_rows",
    "accepted_rows",
    "set_aside_rows",
    "spool_bytes",
    "disk_free_bytes",
)


def row_of(shop: Shop, **changed: Any) -> dict[str, Any]:
    """The row in which the database gives a device."""
    said = report_of(shop, AT.timestamp())
    heard = shop.heard_s is not None
    row = {
        "device_id": shop.device_id,
        "source": shop.device_id,
        "added_at": AT - timedelta(days=90),
        "revoked_at": AT if shop.is_revoked else None,
        "heard_at": AT - timedelta(seconds=shop.heard_s) if shop.heard_s is not None else None,
        "at": AT,
        "reported_token_expires_at": said["token_expires_at"] if heard else None,
        "token_expires_at": None,
    }
    return row | {name: said[name] if heard else None for name in REPORTED} | changed


def states(shop: Shop, **changed: Any) -> list[str]:
    """The names of its conditions."""
    is_silent = (shop.heard_s or 0.0) > 2 * DAY_S
    trouble = Trouble(shop.missing, shop.forked, shop.refused, is_silent, shop.is_implausible)
    return [condition.name for condition in conditions(Device.of_row(row_of(shop, **changed)), trouble)]


@pytest.mark.parametrize("state", STATES)
def test_each_state_is_told_from_what_makes_it(state: str):
    """Each state is told from what makes it."""
    assert state in states(Shop("pi-05", **STATES[state]))


def test_every_condition_has_a_device_that_is_in_it():
    """Every condition has a device that is in it: none is dead, and the page is looked at in all of them."""
    assert set(STATES) == {condition.name for condition in CONDITIONS}


def test_the_most_urgent_comes_first():
    """The most urgent comes first."""
    shop = Shop("pi-05", missing=1, refused=1, clock_ahead_s=9000, oldest_s=300_000, waiting=1)

    assert states(shop) == ["missing", "late", "clock", "refused"]


def test_a_revoked_device_is_that_and_nothing_else():
    """Nobody has to do anything about a device that was shut out."""
    assert states(Shop("pi-05", is_revoked=True, missing=5, heard_s=9e6)) == ["revoked"]


def test_a_wrong_clock_does_not_make_its_sales_older():
    """The age of a sale is the same however wrong the device's clock is."""
    right, wrong = (Shop("pi-05", oldest_s=3600.0, waiting=1, clock_ahead_s=ahead) for ahead in (0.0, -86_400 * 400))

    assert Device.of_row(row_of(right)).oldest_s == Device.of_row(row_of(wrong)).oldest_s == 3600.0 + 30.0


def test_what_is_set_aside_does_not_wait_for_a_line():
    """What is set aside does not wait for a line: nothing else is said of it."""
    assert states(Shop("pi-05", set_aside=2000, oldest_s=9e5)) == ["set-aside"]
    assert states(Shop("pi-05", set_aside=2000, oldest_s=9e5, waiting=1)) == ["set-aside", "late"]


def test_a_sale_grows_older_while_its_device_is_silent():
    """A sale grows older while its device is silent."""
    assert Device.of_row(row_of(Shop("pi-05", heard_s=7200.0, oldest_s=60.0))).oldest_s == 7260.0


@pytest.mark.parametrize(
    "text",
    [
        "",
        "yesterday",
        "2026-01-20T08:30:00",
        "0001-01-01T00:00:00+14:00",
        "9999-12-31T23:59:59-14:00",
        "\0",
        "٢٠٢٦-01-20",
    ],
)
def test_what_is_no_time_says_nothing(text: str):
    """What is no time says nothing."""
    shop = Shop("pi-05")

    assert instant(text) is None
    assert states(shop, sent_at=text, oldest_unsettled_at=text, reported_token_expires_at=text) == ["well"]


def test_a_device_that_says_nothing_is_well():
    """A device that says nothing of itself is heard, and no more is known."""
    nothing = dict.fromkeys((*REPORTED, "reported_token_expires_at"))

    assert states(Shop("pi-05"), **nothing) == ["well"]
