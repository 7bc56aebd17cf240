"""deploy/ansible on four booted machines with an SSH server each, real packages and a real back office."""

import itertools
from dataclasses import dataclass

import pytest
from agent_kit import sale, until
from playbooks import SPARE, Operator, Outcome
from shops import ShopMachine

pytestmark = [pytest.mark.fleet, pytest.mark.root, pytest.mark.timeout(2400)]

NUMBERS = itertools.count(1)


@dataclass(frozen=True)
class FirstDay:
    """What the first runs said, and how blank the machines were after the look."""

    look: Outcome
    installed_after_look: list[bool]
    first: Outcome
    second: Outcome


@pytest.fixture(scope="session")
def first_day(operator: Operator) -> FirstDay:
    """Give the fleet enrolled: looked at, done, and done again."""
    look = operator.play("site.yml", "--check")
    is_installed = [shop.machine.path("/usr/bin/scout-agent").exists() for shop in operator.shops]
    return FirstDay(look, is_installed, operator.play("site.yml"), operator.play("site.yml"))


@pytest.fixture
def fleet(operator: Operator, first_day: FirstDay) -> Operator:
    """Give the operator of a fleet that runs 0.1.0 by the usual config."""
    assert first_day.first.exit_status == 0, first_day.first.output[-3000:]
    if any(shop.installed() != "0.1.0" for shop in operator.shops):
        assert operator.play("upgrade.yml").exit_status == 0
    return operator


def _sell_everywhere(operator: Operator) -> None:
    """A sale in each shop, and wait until bronze has it."""
    before = _rows(operator)
    for shop in operator.shops:
        number = next(NUMBERS)
        shop.sell(f"sale-{number}", sale(number))
    expected = {shop.name: before.get(shop.name, 0) + 1 for shop in operator.shops}
    until(lambda: _rows(operator) == expected, "every shop's sale is in bronze", 60)


def _rows(operator: Operator) -> dict[str, int]:
    return {device["device_id"]: device["rows_loaded"] for device in operator.office("status")}


def _versions(operator: Operator) -> list[str]:
    return [shop.installed() for shop in operator.shops]


def _changes(operator: Operator, outcome: Outcome) -> list[int]:
    return [outcome.count(shop.name, "changed") for shop in operator.shops]


def _identity(shop: ShopMachine) -> tuple[object, ...]:
    """What an upgrade has to leave alone."""
    return shop.secrets(), shop.status()["epoch"], shop.config()


def _report(outcome: Outcome) -> str:
    """The last report of a run."""
    return outcome.output.rpartition("The roll-out so far")[2]


def test_a_look_says_what_would_change_and_changes_nothing(operator: Operator, first_day: FirstDay) -> None:
    """`--check` on blank machines."""
    assert first_day.look.exit_status == 0, first_day.look.output[-3000:]
    assert all(_changes(operator, first_day.look))
    assert first_day.installed_after_look == [False] * 4


def test_fresh_machines_are_enrolled_and_deliver(operator: Operator, first_day: FirstDay) -> None:
    """One run, whatever Debian; as each device says and as the back office does."""
    assert first_day.first.exit_status == 0, first_day.first.output[-3000:]
    assert "4 of 4 devices are as they should be" in _report(first_day.first)
    _sell_everywhere(operator)

    assert [shop.status()["enrolled"] for shop in operator.shops] == [True] * 4
    known = {device["device_id"]: (device["state"], device["version"]) for device in operator.office("devices", "list")}
    assert known == {shop.name: ("enrolled", "0.1.0") for shop in operator.shops}


def test_a_second_run_changes_nothing(operator: Operator, first_day: FirstDay) -> None:
    """Nor does it ask for a code."""
    assert first_day.second.exit_status == 0, first_day.second.output[-3000:]
    assert _changes(operator, first_day.second) == [0] * 4
    assert all(first_day.second.count(shop.name, "ok") for shop in operator.shops)
    assert len(operator.codes) == 4


def test_a_changed_config_reaches_all_and_a_bad_one_none(fleet: Operator) -> None:
    """A running agent takes it over; what its agent refuses is named and put in place nowhere, nor by a look."""
    pids = [shop.machine.show("scout-agent", "MainPID") for shop in fleet.shops]
    changed = fleet.play("site.yml", config_here={"upload": {"rate_kbit_max": 512}})
    assert changed.exit_status == 0, changed.output[-3000:]
    assert all("rate_kbit_max = 512" in shop.config() for shop in fleet.shops)
    assert [shop.machine.show("scout-agent", "MainPID") for shop in fleet.shops] == pids
    for shop in fleet.shops:
        until(lambda shop=shop: "config_reloaded" in shop.machine.events("scout-agent"), "the agent takes it over")
    good = [shop.config() for shop in fleet.shops]

    bad = {"upload": {"rate_kbit_max": 3}}
    for outcome in (fleet.play("site.yml", "--check", config_here=bad), fleet.play("site.yml", config_here=bad)):
        assert outcome.exit_status == 2
        assert "upload.rate_kbit_max: must be 0, for no limit, or at least 8" in _report(outcome)
        assert [outcome.count(shop.name, "ok") > 0 for shop in fleet.shops] == [True, False, False, False]
    assert [shop.config() for shop in fleet.shops] == good
    _sell_everywhere(fleet)


def test_a_config_that_cuts_a_device_off_stops_after_the_first(fleet: Operator) -> None:
    """Its agent can't know that the address is a wrong one; the back office misses the device. The right one heals."""
    stopped = fleet.play("site.yml", server=f"http://127.0.0.1:{SPARE}")
    assert stopped.exit_status == 2
    assert "pi-01: the back office has not heard it" in _report(stopped)
    assert [f":{SPARE}" in shop.config() for shop in fleet.shops] == [True, False, False, False]

    assert fleet.play("site.yml").exit_status == 0
    _sell_everywhere(fleet)


def test_an_upgrade_leaves_out_who_is_off_and_catches_up(fleet: Operator) -> None:
    """In waves; identity, spool and config stay. The shop that was off is named, and is the next run's."""
    before = [_identity(shop) for shop in fleet.shops]
    off = fleet.shops[2]
    off.go_away()
    try:
        outcome = fleet.play("upgrade.yml", version="0.2.0")
    finally:
        off.come_back()
    assert outcome.exit_status == 0, outcome.output[-3000:]
    assert "pi-03: out of reach" in _report(outcome)
    assert "3 of 4 devices are as they should be" in _report(outcome)
    assert _versions(fleet) == ["0.2.0", "0.2.0", "0.1.0", "0.2.0"]

    caught_up = fleet.play("upgrade.yml", version="0.2.0")
    assert caught_up.exit_status == 0, caught_up.output[-3000:]
    assert [bool(changes) for changes in _changes(fleet, caught_up)] == [False, False, True, False]
    assert _versions(fleet) == ["0.2.0"] * 4
    assert [_identity(shop) for shop in fleet.shops] == before
    _sell_everywhere(fleet)
    assert {device["version"] for device in fleet.office("devices", "list")} == {"0.2.0"}


@pytest.mark.parametrize(
    ("version", "reason", "tries"),
    [("0.3.0", "the back office has not heard it", 2), ("0.4.0", "the agent does not run in this version", 1)],
    ids=["calls nobody", "ends at once"],
)
def test_a_broken_version_stops_after_the_first_device(fleet: Operator, version: str, reason: str, tries: int) -> None:
    """However often it is tried, the others are not touched. The version before heals the first one."""
    for _ in range(tries):
        stopped = fleet.play("upgrade.yml", version=version)
        assert stopped.exit_status == 2
        assert f"pi-01: {reason}" in _report(stopped)
        assert "scout_agent_version=OLDER" in _report(stopped)
        assert _versions(fleet) == [version, "0.1.0", "0.1.0", "0.1.0"]
        assert [stopped.count(shop.name, "ok") > 0 for shop in fleet.shops] == [True, False, False, False]

    back = fleet.play("upgrade.yml", version="0.1.0")
    assert back.exit_status == 0, back.output[-3000:]
    assert _versions(fleet) == ["0.1.0"] * 4
    _sell_everywhere(fleet)


def test_without_a_back_office_nothing_is_done(fleet: Operator) -> None:
    """Nobody could judge it."""
    outcome = fleet.play("upgrade.yml", version="0.2.0", back_office="closed")

    assert outcome.exit_status == 2
    assert "closed doesn't answer" in outcome.output
    assert _versions(fleet) == ["0.1.0"] * 4


def test_who_is_revoked_is_not_let_in_again(fleet: Operator) -> None:
    """A card without a key under a revoked name gets no code; once the back office takes it back, it does."""
    shop, codes = fleet.shops[1], fleet.codes
    fleet.server.command("devices", "revoke", shop.name, "--yes")
    shop.machine.run("rm /var/lib/scout-agent/device-key /var/lib/scout-agent/token")
    outcome = fleet.play("site.yml")
    assert outcome.exit_status == 0, outcome.output[-3000:]
    assert f"{shop.name}: revoked" in _report(outcome)
    assert fleet.codes == codes

    fleet.server.command("devices", "restore", shop.name)
    assert fleet.play("site.yml").exit_status == 0
    assert len(fleet.codes) == len(codes) + 1
    _sell_everywhere(fleet)


def test_a_machine_is_not_made_another_device(fleet: Operator) -> None:
    """An address that is written to the wrong name is told, and nothing is changed there."""
    first, second = fleet.shops[:2]
    configs = [first.config(), second.config()]
    outcome = fleet.play("site.yml", f"--limit={first.name}", "-e", f"ansible_port={second.port}")

    assert outcome.exit_status == 2
    assert f"This machine is {second.name}" in _report(outcome)
    assert [first.config(), second.config()] == configs


def test_no_code_token_or_key_is_left_anywhere(fleet: Operator) -> None:
    """Not in what Ansible printed, in a machine's journal or in a command line, while all of the above ran."""
    secrets = {f"code {number}": code for number, code in enumerate(fleet.codes)}
    for shop in fleet.shops:
        secrets |= shop.secrets()
    places = {
        "what Ansible printed": "".join(fleet.output).encode(),
        "command lines": b"\n".join(fleet.command_lines),
        **{f"{shop.name}'s journal": _journal(shop) for shop in fleet.shops},
    }

    assert len(secrets) >= 12
    assert b"scout-agent\0enrol\0--code\0-" in places["command lines"]
    assert all(b"scout-agent enrol" in text or b"ansible" in text for text in places.values())
    found = [(what, where) for what in secrets for where in places if secrets[what].encode() in places[where]]
    assert found == []


def _journal(shop: ShopMachine) -> bytes:
    """Everything that was ever logged on a machine."""
    return shop.machine.run("journalctl --no-pager --output export --all").stdout.encode()
