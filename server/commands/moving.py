"""`load`, `import` and `etl`: what moves sales towards gold."""

import json
import os
import sys
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from server import importing, supervisor
from server.buckets import open_bucket
from server.commands.options import AsJson, BucketUrl, Data, DatabaseUrl, Watch, progress_bar, repeat, say_loaded
from server.config import find_bucket, find_database, now
from server.database import open_pool
from server.etl import TargetResult, run_etl, type_again
from server.loader import load as load_objects
from server.loading import Loading
from server.loop import Loop
from server.repair import repair


def load(
    *,
    data: Data = None,
    database_url: DatabaseUrl = None,
    bucket: BucketUrl = None,
    date: Annotated[
        datetime | None, typer.Option("--date", formats=["%Y-%m-%d"], help="Only this day's folder.")
    ] = None,
    sweep: Annotated[bool, typer.Option("--sweep", help="Look through the whole bucket.")] = False,
    watch: Watch = False,
    as_json: AsJson = False,
) -> None:
    """Load what is new in the bucket into bronze: what devices await, what is missing, and the folders of two days.

    --date loads one day's folder; --sweep everything, wherever it lies; --watch sweeps first and once a day.
    """
    if date and (watch or sweep):
        raise typer.BadParameter("--date loads one day and ends: leave --watch and --sweep out.")
    day = date.date() if date else None
    url = find_database(data, database_url, os.environ)  # first: a wrong --data has no bucket, either
    with open_bucket(find_bucket(data, bucket, os.environ), os.environ) as opened, open_pool(url) as pool:
        if watch:
            step = Loading(pool, opened, lambda: None).step
            repeat(Loop("loader", lambda: say_loaded(step(), as_json, quiet=True), supervisor.LOADER_INTERVAL_S))
        else:
            with progress_bar("loading") as progress:
                summary = load_objects(pool, opened, today=now().date(), day=day, sweep=sweep, progress=progress)
            say_loaded(summary, as_json)
            if day is None:
                repair(pool, opened)


def import_(
    paths: Annotated[list[Path], typer.Argument(help="Folders, files or zips.", metavar="PATH")],
    *,
    add_devices: Annotated[
        bool, typer.Option("--add-devices", help="Let in devices that are not known yet; see --dry-run first.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check everything and change nothing.")] = False,
    data: Data = None,
    database_url: DatabaseUrl = None,
    bucket: BucketUrl = None,
    as_json: AsJson = False,
) -> None:
    """Take sales from a USB stick, or older devices' files, into bucket and bronze.

    What 'scout-agent export' wrote is known by its place. Else, .json and .jsonl files (also .gz and .zst) are taken
    for the device whose folder they lie in, such as scoutpi-0002/2026/sale-17.json, also within zips. Safe to repeat,
    and to break off: what came before, or another way, is known. Says what is missing, damaged or refused, with exit
    status 1, and takes the rest.
    """
    url = find_database(data, database_url, os.environ)
    with (
        open_bucket(find_bucket(data, bucket, os.environ), os.environ) as opened,
        open_pool(url) as pool,
        progress_bar("importing") as progress,
    ):
        imported = importing.import_paths(
            pool, opened, paths, dry_run=dry_run, add_devices=add_devices, progress=progress
        )
    _say_imported(imported, as_json)
    if imported.problems:
        raise typer.Exit(1)


def etl(
    *,
    again: Annotated[
        bool, typer.Option("--again", help="Type all that is there again, after a change of the tills' dialects.")
    ] = False,
    data: Data = None,
    database_url: DatabaseUrl = None,
    watch: Watch = False,
    as_json: AsJson = False,
) -> None:
    """Move what bronze received to production, silver and gold. Cost follows the new rows.

    --again also reads every row of production again: needed once after a change of scout.dialect or scout.vocabulary,
    for what is there already. New sales come first; a run that is broken off goes on where it was.
    --watch also refreshes once a day what 'gold refresh' does.
    """
    with open_pool(find_database(data, database_url, os.environ)) as pool:
        if again:
            typer.echo(f"{type_again(pool):,} rows are typed again", err=True)
        if watch:
            moving = Loop("etl", lambda: _say_moved(run_etl(pool), as_json, quiet=True), supervisor.ETL_INTERVAL_S)
            repeat(moving, supervisor.gold_loop(pool))
        else:
            _say_moved(run_etl(pool), as_json)


def _say_imported(imported: importing.Imported, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(asdict(imported)))
        return
    for problem in imported.problems:
        typer.echo(f"{problem.kind}: {problem.path!r}: {problem.reason}", err=True)
    would = "would be " if imported.dry_run else ""
    for device_id, objects in imported.devices.items():
        is_new = f"  {would}added" if device_id in imported.devices_added else ""
        typer.echo(f"{device_id:<24}{objects:>9,} objects{is_new}")
    typer.echo(
        f"{imported.objects:,} good objects with {imported.rows:,} sales, {imported.stored:,} {would}new in the bucket"
    )
    if not imported.dry_run:
        typer.echo(
            f"{imported.loaded_before:,} objects loaded before, {imported.loaded:,} now, {imported.waiting:,} waiting: "
            f"{imported.accepted:,} sales new, {imported.duplicates:,} known already, {imported.rejected:,} refused"
        )
    typer.echo(f"{imported.left_alone:,} files of other kinds left alone; {len(imported.problems):,} problems")


def _say_moved(results: list[TargetResult], as_json: bool, quiet: bool = False) -> None:
    if quiet and not any(result.read for result in results):
        return
    if as_json:
        typer.echo(json.dumps([asdict(result) for result in results], default=str))
    else:
        for result in results:
            typer.echo(
                f"{result.target}: {result.read} read, {result.written} written, {result.already_there} already "
                f"there, {result.refused} fields refused, {result.lag_s:.0f} s behind"
            )
        if not results:
            typer.echo("nothing to move")
    sys.stdout.flush()
