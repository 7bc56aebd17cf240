"""`spool check` and `spool repair`, as they are run by hand."""

import hashlib
import json
import random
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from agent_kit import FakeServer, sale, until
from daemons import Daemon, run_agent
from test_damage import DAMAGES, checkpointed, config, cut_spool, one_altered_sale, zeroed_pages

from agent import config as configuration
from agent.clock import SystemClock
from agent.errors import LocalFault
from agent.inspection import inspect
from agent.lock import only_daemon
from agent.repair import plan_of, repair
from agent.space import space_of
from agent.upkeep import begin

__all__ = ["config", "cut_spool"]


def checked(config: Path) -> tuple[int, dict[str, Any]]:
    """Ask `spool check --json`."""
    done = run_agent(config, "spool", "check", "--json")
    seen = json.loads(done.stdout)
    assert seen["exit_status"] == done.returncode
    return done.returncode, seen


def hashes(folder: Path) -> dict[str, str]:
    """Every file below a folder. SQLite's shared memory apart: it holds nothing that is kept."""
    return {
        str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in folder.rglob("*")
        if file.is_file() and not file.name.endswith("-shm")
    }


def test_a_sound_spool_is_said_to_be_sound_with_the_daemon_dead_or_alive(
    config: Path, start: Callable[[], Daemon], server: FakeServer
) -> None:
    """Every record is counted, and nothing is written."""
    before = hashes(config.parent)
    code, seen = checked(config)
    assert hashes(config.parent) == before
    assert code == 0
    assert [(epoch["head"], epoch["records"], epoch["missing"]) for epoch in seen["epochs"]] == [(300, 300, 0)]
    assert seen["state"]["waiting_rows"] == 250
    start()
    until(lambda: len(server.numbers()) == 300, "it runs")
    beside = run_agent(config, "spool", "check")

    assert beside.returncode == 0
    assert beside.stdout.endswith(b"The spool is sound.\n")


@pytest.mark.parametrize("harm", DAMAGES)
def test_damage_is_found_planned_and_repaired(config: Path, harm: Callable[[Path], None]) -> None:
    """Check finds it, the plan changes no file, repair does it and deletes nothing; then there is nothing to repair."""
    loaded = configuration.load(config)
    harm(loaded.spool_file)
    before = hashes(config.parent)
    seen = inspect(loaded.spool_file)
    plan = plan_of(loaded)
    assert hashes(config.parent) == before
    assert seen.exit_status == 2
    assert plan.reasons == seen.damage != ()
    (done,) = repair(loaded, clock=SystemClock(), rng=random.Random(1), seen=lambda _page, _pages: None)
    after = hashes(config.parent)
    now = inspect(loaded.spool_file)

    assert set(before.values()) <= set(after.values())
    assert (done.rows_salvaged or 0) + (done.rows_lost or 0) <= 300
    assert sum(epoch.lost for epoch in now.epochs) == done.rows_lost
    assert now.exit_status == (1 if done.rows_lost else 0)
    assert plan_of(loaded).is_empty


def test_the_dry_run_says_what_repair_then_does(config: Path) -> None:
    """And changes no file."""
    zeroed_pages(config.parent / "spool" / "spool.db")
    before = hashes(config.parent)
    planned = run_agent(config, "spool", "repair", "--dry-run")
    assert hashes(config.parent) == before
    done = run_agent(config, "spool", "repair")

    assert (planned.returncode, done.returncode) == (0, 0)
    assert b"would be moved into a new folder beside it" in planned.stdout
    assert b" sales salvaged, " in done.stdout
    assert b"lost. It is kept." in done.stdout
    assert done.stderr.count(b"salvaging") == 0


def test_check_names_what_no_check_of_sqlites_sees(config: Path) -> None:
    """A record that is gone, one that is altered, a batch that is no longer what was sealed."""
    file = config.parent / "spool" / "spool.db"
    checkpointed(file)
    connection = sqlite3.connect(file)
    connection.execute("delete from records where place % 1000 = 299")
    connection.execute("update records set line = replace(line, 't-7\"', 't-8\"') where place % 1000 = 8")
    connection.commit()
    connection.close()
    code, seen = checked(config)

    assert code == 2
    assert [(epoch["missing"], epoch["altered"]) for epoch in seen["epochs"]] == [(1, 1)]
    assert len(seen["batches_damaged"]) == 1
    assert len(seen["damage"]) == 3


def test_repair_refuses_while_the_daemon_runs(config: Path) -> None:
    """Dry or not."""
    loaded = configuration.load(config)
    lock = only_daemon(loaded.spool_file.parent)
    with pytest.raises(LocalFault, match="Stop it first"):
        plan_of(loaded)
    with pytest.raises(LocalFault, match="Stop it first"):
        repair(loaded, clock=SystemClock(), rng=random.Random(1), seen=lambda _page, _pages: None)
    lock.close()


def test_a_salvage_that_was_cut_is_seen_and_finished(config: Path) -> None:
    """Attention until then, not damage."""
    loaded = configuration.load(config)
    zeroed_pages(loaded.spool_file)
    begin(loaded, clock=SystemClock(), rng=random.Random(1), space=space_of(loaded))
    seen = inspect(loaded.spool_file)
    assert (seen.exit_status, seen.damage, len(seen.unsalvaged)) == (1, (), 1)
    assert plan_of(loaded).folders == (seen.unsalvaged[0].folder,)
    repair(loaded, clock=SystemClock(), rng=random.Random(1), seen=lambda _page, _pages: None)

    assert inspect(loaded.spool_file).unsalvaged == ()


def test_without_a_spool_check_says_so(config: Path) -> None:
    """In one sentence."""
    config.write_text(config.read_text().replace("/spool", "/elsewhere"))
    done = run_agent(config, "spool", "check")

    assert (done.returncode, b"does not exist" in done.stderr) == (1, True)


def test_no_sale_is_in_what_is_said(config: Path) -> None:
    """Neither by check nor by repair."""
    file = config.parent / "spool" / "spool.db"
    run_agent(config, "add", "-", given=sale(1, customer="Maria Clara"))
    one_altered_sale(file)
    output = b""
    for arguments in (["check", "--json"], ["repair", "--dry-run"]):
        done = run_agent(config, "spool", *arguments)
        # The folder's own name may look like a sale's: pytest numbers its folders.
        output += (done.stdout + done.stderr).replace(bytes(config.parent), b"FOLDER")

    assert b"FOLDER" in output
    assert b"does not match its checksum" in output
    assert b"Maria" not in output
    assert b"t-78" not in output
