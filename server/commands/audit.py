"""`audit`, and `gaps list` and `gaps accept`: where every sale is, and what is accepted as lost."""

import json
import os
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, fields
from datetime import datetime
from typing import Annotated

import psycopg
import typer

from server import audit as custody
from server import fleet
from server.commands.options import AsJson, Data, DatabaseUrl, Device
from server.config import find_database, now

RUNS_SHOWN_MAX = 20
"""Runs of one epoch on a terminal; --json has them all."""

app = typer.Typer(help="What is missing, and what is accepted as lost.", no_args_is_help=True)

_RUN = re.compile(r"([1-9]\d{0,11})(?:-([1-9]\d{0,11}))?", re.ASCII)


def audit(
    *,
    device: Device = None,
    since: Annotated[
        datetime | None,
        typer.Option(formats=["%Y-%m-%d"], help="Only epochs heard of, days and forks since this day (UTC)."),
    ] = None,
    data: Data = None,
    database_url: DatabaseUrl = None,
    as_json: AsJson = False,
) -> None:
    """Say where every sale is that a device ever took. Exit status 0 when nothing is missing, 1 else.

    Each number up to the highest that a device reported is in bronze, in quarantine, retired, unsettled on the device,
    accepted as lost, lost by the device's own word, or missing; what is missing is asked for again by itself. Sums are
    compared per device and day, from the ledger to silver. Forks are listed; silent devices and alarms exit with 1,
    too. --device shows each epoch.
    """
    day = since.date() if since else None
    with psycopg.connect(find_database(data, database_url, os.environ), autocommit=True) as connection:
        _refuse_unknown(connection, device)
        found = custody.audit(connection, device_id=device, since=day)
    problems = found.problems()
    if as_json:
        typer.echo(json.dumps({"clean": not problems, "problems": problems, **asdict(found)}, default=str))
    else:
        _say_epochs(found, by_epoch=device is not None)
        _say_rest(found)
        typer.echo("not clean: " + "; ".join(problems) if problems else "clean: every sale is accounted for")
    if problems:
        raise typer.Exit(1)


@app.command(name="list")
def list_gaps(
    *,
    device: Device = None,
    everything: Annotated[bool, typer.Option("--all", help="Also those that were accepted.")] = False,
    data: Data = None,
    database_url: DatabaseUrl = None,
    as_json: AsJson = False,
) -> None:
    """List the runs of sales that nobody holds. The server asks for them again by itself."""
    with psycopg.connect(find_database(data, database_url, os.environ), autocommit=True) as connection:
        _refuse_unknown(connection, device)
        gaps = custody.list_gaps(connection, device_id=device, accepted=everything)
    if as_json:
        typer.echo(json.dumps([asdict(gap) for gap in gaps], default=str))
        return
    for gap in gaps:
        state = "lost on the device" if gap.lost_on_device else "missing"
        accepted = f"; accepted {gap.accepted_at:%Y-%m-%d}: {gap.why}" if gap.accepted_at else ""
        typer.echo(f"{gap.device_id:<24}{gap.epoch}  {gap.first_seq}-{gap.last_seq}  {gap.seqs:,} {state}{accepted}")
    if not gaps:
        typer.echo("no gaps")


@app.command()
def accept(
    device: Annotated[str, typer.Argument(help="As 'gaps list' shows it.")],
    epoch: Annotated[str, typer.Argument(help="As 'gaps list' shows it.")],
    run: Annotated[str, typer.Argument(metavar="FIRST-LAST", help="The numbers, or a part of them.")],
    *,
    why: Annotated[str, typer.Option(help="What is known of the loss. It is kept.")],
    data: Data = None,
    database_url: DatabaseUrl = None,
) -> None:
    """Accept that what is missing of a run is lost for good: the card is gone, say.

    It is no longer asked for and no longer keeps the audit from being clean, and stays visible in 'gaps list --all'.
    Only what is missing now is accepted; what arrives after all is as welcome as ever.
    """
    numbers = _RUN.fullmatch(run)
    if numbers is None or int(numbers[2] or numbers[1]) < int(numbers[1]):
        raise typer.BadParameter("a run is FIRST-LAST, such as 120-340, or one number.")
    if not why.strip():
        raise typer.BadParameter("--why says what is known of the loss; it can't be empty.")
    chosen = (int(numbers[1]), int(numbers[2] or numbers[1]))
    with psycopg.connect(find_database(data, database_url, os.environ), autocommit=True) as connection:
        seqs = custody.accept_gap(connection, device, epoch, chosen, why.strip())
    typer.echo(f"accepted: {seqs:,} sales of {device} are lost")


def _refuse_unknown(connection: psycopg.Connection, device: str | None) -> None:
    """Raise Misconfigured for a name that is mistyped: of it nothing is missing, and that would look like good news."""
    if device is not None:
        fleet.device(connection, device, now())


_COUNTS = ("head", "bronze", "quarantined", "retired", "unsettled", "accepted", "lost", "missing")


def _say_epochs(found: custody.Audit, *, by_epoch: bool) -> None:
    heads = "".join(f"{name:>13}" for name in _COUNTS)
    typer.echo(f"{'device':<24}{heads}")
    of_device: dict[str, list[custody.EpochCustody]] = defaultdict(list)
    for epoch in found.epochs:
        of_device[epoch.device_id].append(epoch)
    for device_id, epochs in of_device.items():
        _say_counts(device_id, epochs)
        for epoch in epochs:
            if by_epoch:
                _say_counts(f"  {epoch.epoch}", [epoch])
            if not epoch.is_whole:
                typer.echo(f"  {epoch.epoch}: NOT COUNTED ONCE; this is a defect of the server, please report it")
            tried = f"; tried {epoch.tries} times, next {epoch.next_try_at:%Y-%m-%d %H:%M}" if epoch.next_try_at else ""
            if epoch.missing_runs:
                typer.echo(f"  {epoch.epoch}: missing {_words(epoch.missing_runs)}{tried}")
            if epoch.lost_runs:
                typer.echo(f"  {epoch.epoch}: lost on the device {_words(epoch.lost_runs)}{tried}")
        said = found.said.get(device_id)
        if by_epoch and said:
            typer.echo(f"  it said: {said.waiting:,} wait, {said.accepted:,} accepted, {said.set_aside:,} set aside")


def _say_counts(name: str, epochs: Iterable[custody.EpochCustody]) -> None:
    counts = (sum(getattr(epoch, count) for epoch in epochs) for count in _COUNTS)
    typer.echo(f"{name:<24}" + "".join(f"{count:>13,}" for count in counts))


def _say_rest(found: custody.Audit) -> None:
    off = [day for day in found.sums if not day.meet]
    typer.echo(f"sums of {len(found.sums):,} days of devices compared, {len(off):,} don't meet")
    names = [field.name for field in fields(custody.DaySums)][2:]
    for day in off:
        layers = ", ".join(f"{name} {getattr(day, name):,}" for name in names)
        typer.echo(f"  {day.device_id} {day.day}: {layers}")
    for fork in found.forks:
        typer.echo(f"fork: {fork.device_id} {fork.epoch} {_words(fork.runs)}, last seen {fork.seen_at:%Y-%m-%d %H:%M}")
    say_alarms(found.silent, found.alarms)


def say_alarms(silent: Iterable[custody.SilentDevice], alarms: Iterable[custody.Alarm]) -> None:
    """Print which devices should have spoken, and what devices report that can't be so."""
    for device in silent:
        typer.echo(
            f"silent: {device.device_id} was last heard {device.heard_at:%Y-%m-%d %H:%M}, "
            f"{device.silent_s / 86_400:.1f} days ago"
        )
    for alarm in alarms:
        typer.echo(f"alarm: {alarm.device_id} {alarm.kind}: {alarm.detail}, since {alarm.first_seen_at:%Y-%m-%d %H:%M}")


def _words(runs: Sequence[custody.Run]) -> str:
    shown = ", ".join(f"{first}-{last}" for first, last in runs[:RUNS_SHOWN_MAX])
    more = f" and {len(runs) - RUNS_SHOWN_MAX:,} runs more" if len(runs) > RUNS_SHOWN_MAX else ""
    return shown + more
