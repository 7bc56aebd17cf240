"""The doctor's checks of the device itself: each breaks for its own reason, and says what to do."""

import os
import sqlite3
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from agent_kit import DEVICE, a_folder_for_all, a_token, open_spool, sale
from fakes import FakeClock

from agent.device_key import DeviceKey, write_key
from agent.doctor.finding import AS_ROOT, Check, Finding, Outcome, attention, broken, examine, exit_status, ok
from agent.doctor.machine import (
    Account,
    account_of,
    check_clock,
    check_disk,
    check_folder,
    check_key,
    check_rights,
    check_spool,
    check_tail,
    check_token,
)
from agent.errors import LocalFault, SpoolForbidden

AGENT = Account(number=4711, groups=frozenset({4712}), name="scout-agent")
NEVER = datetime(1970, 1, 1, tzinfo=UTC)


def results(findings: list[Finding]) -> dict[str, str]:
    """Results by check."""
    return {finding.check: finding.result for finding in findings}


def test_what_hangs_on_a_broken_check_is_not_checked() -> None:
    """Neither is what hangs on that; attention stops nothing."""
    asked: list[str] = []

    def check(name: str, outcome: Outcome, *needs: str) -> Check:
        return Check(name, lambda: (asked.append(name), outcome)[1], needs)

    findings = list(
        examine(
            [
                check("a", attention("hm", "do")),
                check("b", broken("no", "do"), "a"),
                check("c", ok("yes"), "a"),
                check("d", ok("yes"), "c", "b"),
                check("e", ok("yes"), "d"),
            ]
        )
    )

    assert results(findings) == {"a": "attention", "b": "broken", "c": "ok", "d": "not checked", "e": "not checked"}
    assert findings[3].message == "needs b"
    assert asked == ["a", "b", "c"]
    assert [exit_status(findings), exit_status(findings[:1]), exit_status(findings[2:3])] == [2, 1, 0]


@pytest.mark.parametrize("error", [LocalFault("gone"), OSError("bad sector"), sqlite3.OperationalError("locked")])
def test_a_check_that_meets_trouble_ends_nothing(error: Exception) -> None:
    """It is broken itself, and the next one is asked."""

    def fail() -> Outcome:
        raise error

    findings = list(examine([Check("a", fail), Check("b", lambda: ok("yes"))]))

    assert results(findings) == {"a": "broken", "b": "ok"}
    assert str(error) in findings[0].message


def test_who_may_not_look_is_told_how() -> None:
    """A technician's own account has no business in the spool."""

    def fail() -> Outcome:
        raise SpoolForbidden("no")

    (found,) = examine([Check("a", fail)])

    assert (found.result, found.next_step) == ("broken", AS_ROOT)


def _home(folder: Path) -> tuple[Path, Path]:
    home, token = folder / "spool", folder / "spool" / "token"
    home.mkdir(mode=0o750)
    token.touch(mode=0o600)
    (home / "spool.db").touch(mode=0o640)
    return home, token


@pytest.mark.parametrize(
    ("spoil", "result", "says"),
    [
        (lambda _home: None, "ok", "alone"),
        (lambda home: home.chmod(0o755), "attention", "everybody may look"),
        (lambda home: (home / "token").chmod(0o644), "attention", "others may read the token"),
        (lambda home: (home / "token").unlink(), "ok", "alone"),
        (lambda home: home.chmod(0o550), "broken", "may not write"),
        (lambda home: (home / "token").chmod(0o000), "broken", "may not read it"),
    ],
)
def test_rights(tmp_path: Path, spoil: Callable[[Path], Any], result: str, says: str) -> None:
    """Of an account that is not root, for whom modes count."""
    home, token = _home(tmp_path)
    account = Account(os.geteuid(), frozenset(), "scout-agent")
    spoil(home)
    if account.number == 0:
        account = AGENT
        for path in (home, *home.iterdir()):
            os.chown(path, AGENT.number, 4712)
    outcome = check_rights(home, token, account)

    assert (outcome.result, says in outcome.message) == (result, True), outcome


def test_a_file_that_root_left_behind_is_found(tmp_path: Path) -> None:
    """`sudo scout-agent add` before the first start: the agent then can't write its own spool."""
    home, token = _home(tmp_path)
    outcome = check_rights(home, token, AGENT)

    assert outcome.result == "broken"
    assert outcome.next_step == f"sudo chown -R scout-agent: {home}"
    assert check_rights(tmp_path / "none", token, AGENT).result == "attention"


def test_the_account_is_whose_directory_it_is(tmp_path: Path) -> None:
    """The doctor is usually asked by root, for whom everything is allowed."""
    assert account_of(tmp_path).number == tmp_path.stat().st_uid
    assert account_of(tmp_path / "none").number == os.geteuid()


def test_spool(tmp_path: Path, clock: FakeClock) -> None:
    """Missing, whole, another device's, damaged."""
    file = tmp_path / "spool.db"
    assert check_spool(file, DEVICE, clock).result == "attention"
    spool = open_spool(file, clock)
    spool.append([sale(number) for number in range(3000)])
    spool.close()
    assert check_spool(file, DEVICE, clock) == ok(f"{file} is whole")
    assert "belongs to device pi-05" in check_spool(file, "pi-06", clock).message
    content = bytearray(file.read_bytes())
    content[len(content) // 2 :] = b"\xff" * (len(content) - len(content) // 2)
    file.write_bytes(content)
    damaged = check_spool(file, DEVICE, clock)

    assert damaged.result == "broken"
    assert damaged.next_step == "tell the back office; delete nothing"


def _disk(blocks: int = 1000, files: int = 1000, flags: int = 0) -> os.statvfs_result:
    return os.statvfs_result((4096, 4096, 10**6, blocks, blocks, 10**6, files, files, flags, 255))


@pytest.mark.parametrize(
    ("disk", "result", "says"),
    [
        (_disk(), "ok", "free"),
        (_disk(blocks=10), "broken", "only 0 MB"),
        (_disk(files=0), "broken", "no further file"),
        (_disk(flags=os.ST_RDONLY), "broken", "read-only"),
    ],
)
def test_disk(tmp_path: Path, disk: os.statvfs_result, result: str, says: str) -> None:
    """Full, out of inodes, or turned read-only by a worn card; a directory yet to be made lies on its parent's."""
    outcome = check_disk(tmp_path / "none" / "yet", 1_000_000, statvfs=lambda _folder: disk)

    assert (outcome.result, says in outcome.message) == (result, True)
    assert check_disk(tmp_path, 1).result == "ok"


@pytest.mark.parametrize(
    ("mode", "group", "result"),
    [(0o777, 0, "ok"), (0o770, 4712, "ok"), (0o770, 0, "broken"), (0o755, 0, "broken"), (0o766, 0, "broken")],
)
@pytest.mark.root
def test_folder_of_another_account(mode: int, group: int, result: str) -> None:
    """The till's folder must let the agent take files out: by its group or by everybody."""
    with a_folder_for_all() as home:
        folder = home / "sales"
        folder.mkdir()
        os.chown(folder, 0, group)
        folder.chmod(mode)

        assert check_folder(str(folder), AGENT).result == result


def test_folder(tmp_path: Path) -> None:
    """Missing, no folder, with rejected files, good."""
    account = account_of(tmp_path)
    assert check_folder(str(tmp_path / "none"), account).result == "attention"
    (tmp_path / "file").touch()
    assert check_folder(str(tmp_path / "file"), account).result == "broken"
    assert check_folder(str(tmp_path), account).result == "ok"
    (tmp_path / "rejected").mkdir()
    (tmp_path / "rejected" / "x.reason.txt").touch()
    assert check_folder(str(tmp_path), account).result == "attention"


def test_the_files_that_a_till_appends_to_must_be_readable(tmp_path: Path) -> None:
    """Only readable: the till's folder may be closed to writing."""
    account = Account(number=4711, groups=frozenset({4712}), name="scout-agent")
    with a_folder_for_all() as home:
        (home / "sales.jsonl").write_bytes(b"")
        home.chmod(0o555)
        assert check_tail(str(home), account).result == "ok"
        (home / "sales.jsonl").chmod(0o600)
        closed = check_tail(str(home), account)

    assert (closed.result, "sales.jsonl" in closed.message) == ("broken", True)
    assert check_tail(str(tmp_path / "none"), account).result == "broken"
    assert check_tail("", account).result == check_folder("", account).result == "ok"


def test_clock(clock: FakeClock) -> None:
    """Right, unsynchronised, and before this program was made."""
    assert check_clock(clock, NEVER).result == "ok"
    clock.synced = False
    assert check_clock(clock, NEVER).result == "attention"
    clock.now_is(NEVER)
    assert check_clock(clock, datetime(2026, 1, 1, tzinfo=UTC)).result == "broken"


@pytest.mark.parametrize(
    ("claims", "result", "says"),
    [
        ({}, "ok", "pi-05's, 23.9 days left"),
        ({"sub": "pi-06"}, "broken", "another device's than pi-05"),
        ({"role": "anon"}, "broken", "its role is another"),
        ({"exp": None}, "broken", "does not hold a token"),
        ({"expires_at": datetime(2027, 3, 4, tzinfo=UTC)}, "attention", "2.9 days left"),
        ({"expires_at": datetime(2027, 2, 4, tzinfo=UTC)}, "broken", "expired on 2027-02-04"),
    ],
)
def test_token(tmp_path: Path, clock: FakeClock, claims: dict[str, Any], result: str, says: str) -> None:
    """Parsed, and never shown."""
    file = tmp_path / "token"
    text = a_token(**({"role": "edge_uploader"} | claims))
    file.write_text(text)
    outcome = check_token(file, DEVICE, clock, enrolled=False)

    assert (outcome.result, says in outcome.message) == (result, True), outcome
    assert not any(part in outcome.message + outcome.next_step for part in text.split("."))


def test_no_token(tmp_path: Path, clock: FakeClock) -> None:
    """Missing, or something else in its file."""
    assert "does not exist" in check_token(tmp_path / "token", DEVICE, clock, enrolled=False).message
    (tmp_path / "token").write_text("hello")
    assert "does not hold a token" in check_token(tmp_path / "token", DEVICE, clock, enrolled=False).message


def test_an_enrolled_device_needs_nobody_for_its_token(tmp_path: Path, clock: FakeClock) -> None:
    """What is over or missing is replaced by key."""
    (tmp_path / "token").write_text(a_token(datetime(2027, 2, 4, tzinfo=UTC), role="edge_uploader"))
    steps = {check_token(tmp_path / name, DEVICE, clock, enrolled=True).next_step for name in ("token", "none")}

    assert all(step.startswith("nothing: the agent") for step in steps)


def test_the_key_is_looked_at_and_never_shown(tmp_path: Path) -> None:
    """Whose it is, whether it is one, and who may read it."""
    file = tmp_path / "device-key"
    key = DeviceKey("A" * 43 + "=", DEVICE, "")
    results = [check_key(file, DEVICE).result]
    for content in (key, DeviceKey(key.private_key, "pi-06", "")):
        write_key(file, content)
        results.append(check_key(file, DEVICE).result)
    write_key(file, key)
    file.chmod(0o640)
    results.append(check_key(file, DEVICE).result)
    file.write_text(key.private_key)
    damaged = check_key(file, DEVICE)

    assert [*results, damaged.result] == ["ok", "ok", "broken", "attention", "broken"]
    assert key.private_key not in damaged.message + damaged.next_step
