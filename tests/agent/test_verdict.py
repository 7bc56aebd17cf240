"""What is the matter and what to do, from what was seen."""

from dataclasses import replace
from pathlib import Path

import orjson
import pytest
from status_kit import DAEMON, FAULT, WELL, told

from agent.verdict import Problem, Status

MISSING = Problem("spool_missing", "there is no spool", "look")
BUSY = Problem("spool_busy", "it is locked", "wait")
DAMAGED = Problem("spool_damaged", "it is damaged", "tell")
TOKEN = Problem("token", "there is no token", "get one")


def test_a_device_that_is_well_has_no_problem() -> None:
    """Exit status 0; waiting sales, quiet hours and an unsynchronised clock are everyday things."""
    everyday = replace(
        told(quiet_until="2027-03-01T20:00:00.000Z", clock_offset_s=-200.0, path="endpoint"),
        rows_not_sent=50,
        oldest_unsent_age_s=600.0,
        clock_synced=False,
        rows_accepted=7,
    )

    assert [seen.exit_status for seen in (WELL, everyday)] == [0, 0]


@pytest.mark.parametrize(
    ("seen", "code", "exit_status"),
    [
        (replace(WELL, running=False, daemon=None), "not_running", 2),
        (replace(WELL, config_problem=Problem("config_refused", "a", "b")), "config_refused", 2),
        (replace(WELL, spool_problem=MISSING), "spool_missing", 2),
        (replace(WELL, spool_problem=DAMAGED), "spool_damaged", 2),
        (told(intake_refused="the spool is full"), "intake_refused", 2),
        (told(source_faults=(("folder", "may not be read"),)), "source_fault", 2),
        (replace(WELL, spool_problem=BUSY), "spool_busy", 1),
        (replace(WELL, token_problem=TOKEN, token_days_left=None), "token", 1),
        (replace(WELL, token_days_left=4.9), "token_due", 1),
        (replace(WELL, token_days_left=-3.0), "token_due", 1),
        (replace(WELL, rows_set_aside=3), "set_aside", 1),
        (replace(WELL, rows_lost=250), "sales_lost", 1),
        (replace(WELL, rejected_files=1), "files_rejected", 1),
        (replace(WELL, oldest_unsent_age_s=3601.0), "waiting_long", 1),
        (replace(WELL, hours_to_full=23.0), "nearly_full", 1),
        (told(paused_until="2027-03-01T04:30:00.000Z"), "paused", 1),
        (told(config_refused="batch.rows_max: expected >= 1"), "changed_config_refused", 1),
        (told(version="0.9"), "restart_needed", 1),
        (told(last_fault=FAULT), "last_fault", 1),
        (told(kept_shortened=True), "kept_shortened", 1),
        (told(clock_offset_s=-301.0), "clock_wrong", 1),
        (told(renewal_fault=replace(FAULT, kind="credentials")), "renewal_failed", 1),
        (replace(WELL, enrolled=True, token_days_left=4.9), "token_due", 1),
    ],
)
def test_each_trouble_is_one_problem_with_a_next_step(seen: Status, code: str, exit_status: int) -> None:
    """And decides the exit status alone."""
    problems = [*seen.broken, *seen.attention]

    assert [problem.code for problem in problems] == [code]
    assert seen.exit_status == exit_status
    assert problems[0].message
    assert problems[0].next_step


def test_a_device_that_never_took_a_sale_is_only_not_running() -> None:
    """Its missing spool is no damage; under a running daemon it would be."""
    seen = replace(WELL, running=False, daemon=None, spool_problem=MISSING)

    assert [problem.code for problem in seen.broken] == ["not_running"]
    assert [problem.code for problem in seen.attention] == ["spool_missing"]


def test_a_token_problem_is_said_once() -> None:
    """Not again as the daemon's last error, which it caused."""
    refused = replace(FAULT, kind="credentials")
    seen = replace(WELL, token_problem=TOKEN, daemon=replace(DAEMON, last_fault=refused))

    assert [problem.code for problem in seen.attention] == ["token"]


def test_the_json_says_what_the_screen_says() -> None:
    """Problems and exit status are in it beside the facts."""
    fields = orjson.loads(orjson.dumps(told(last_fault=FAULT).to_fields()))

    assert fields["exit_status"] == 1
    assert [problem["code"] for problem in fields["attention"]] == ["last_fault"]
    assert fields["daemon"]["last_fault"] == fields["last_fault"]
    assert WELL.to_fields()["last_fault"] is None


def test_an_enrolled_device_worries_nobody_about_what_it_sees_to_itself() -> None:
    """A clock that no time server sets tells no date, and a server out of reach is told elsewhere."""
    unset = replace(WELL, enrolled=True, token_days_left=-300.0, clock_synced=False)
    offline = replace(told(renewal_fault=FAULT), enrolled=True)
    due = replace(offline, token_days_left=2.0)

    assert [seen.exit_status for seen in (unset, offline)] == [0, 0]
    assert [problem.code for problem in due.attention] == ["token_due", "renewal_failed"]
    assert due.attention[0].next_step.startswith("nothing: the agent")


def test_the_readme_names_what_the_json_holds() -> None:
    """A monitoring system relies on these names."""
    readme = (Path(__file__).parents[2] / "docs" / "agent.md").read_text()
    internal = {"config_problem", "spool_problem", "token_problem", "rejected_in", "last_fault"}
    names = WELL.to_fields().keys() - internal

    assert len(names) > 25
    assert {name for name in names if f"`{name}`" not in readme} == set()
