"""`backup` and `restore`: everything in a folder of its own, and back."""

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import Annotated
from urllib.parse import unquote, urlsplit

import typer

from server.backup import BackupFolder, Manifest, Source, back_up
from server.buckets import open_bucket
from server.commands.options import AsJson, BucketUrl, Data, DatabaseUrl, directory_of, progress_bar
from server.config import bucket_url, find_bucket, find_database, now
from server.errors import Misconfigured, ServerError
from server.restore import Chosen, Restored, check, choose, restore_directory, restore_pieces

Folder = Annotated[Path, typer.Argument(help="The folder of the backup, such as /srv/backup.", metavar="FOLDER")]
NAMED_MAX = 10


def backup(
    folder: Folder,
    *,
    keep: Annotated[
        int | None, typer.Option(min=1, help="Keep so many dumps, this one included. Default: all.", show_default=False)
    ] = None,
    no_objects: Annotated[
        bool, typer.Option("--no-objects", help="The database alone: somebody else keeps the bucket safe.")
    ] = False,
    data: Data = None,
    database_url: DatabaseUrl = None,
    bucket: BucketUrl = None,
    as_json: AsJson = False,
) -> None:
    """Back up database, bucket and JWT secret into a folder, while the server runs.

    FOLDER is empty the first time, and has a file system with hard links. Of the objects only new ones are copied.
    What was broken off, by a full disk or a kill, is no backup; those before are as they were.
    """
    url = find_database(data, database_url, os.environ)
    directory = directory_of(data, database_url)
    bucket_at = None if no_objects else find_bucket(data, bucket, os.environ)
    _refuse_inside(folder, directory, bucket_at)
    opening = open_bucket(bucket_at, os.environ) if bucket_at else nullcontext()
    with _disk_faults(folder), BackupFolder(folder, writing=True) as held, opening as opened:
        source = Source(url, opened, directory, os.environ)
        made = back_up(source, held, program=installed_version("scout-edge"), now=now(), keep=keep)
        kept = len(held.names())
    _say_made(made, folder, kept, as_json)


def restore(
    folder: Folder,
    *,
    at: Annotated[str | None, typer.Option(help="Which backup. Default: the newest.", show_default=False)] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check everything and change nothing.")] = False,
    data: Data = None,
    database_url: DatabaseUrl = None,
    bucket: BucketUrl = None,
    as_json: AsJson = False,
) -> None:
    """Bring a backup back: into a new directory (--data) for 'up', or into a given database and bucket.

    Stop the server first. Nothing is restored over anything: the directory must be new or empty, the database without
    anything of ours; what a bucket lacks is added. Every device is asked again about all that it keeps, as
    'after-restore' does. Damaged objects are named, with exit status 1, and all others restored.
    """
    with _disk_faults(folder), BackupFolder(folder, writing=False) as held, progress_bar("objects") as progress:
        chosen = choose(held, at)
        count = chosen.manifest.objects.count if chosen.manifest.objects else 0

        def show(done: int) -> None:
            progress(done, max(count, done))

        restored = check(chosen, show) if dry_run else _restore(chosen, data, database_url, bucket, show)
    _say_restored(restored, folder, dry_run, as_json)
    if restored.damaged or restored.missing:
        raise typer.Exit(1)


def _restore(
    chosen: Chosen, data: Path | None, database_url: str | None, bucket: str | None, show: Callable[[int], None]
) -> Restored:
    directory = directory_of(data, database_url)
    bucket_at = find_bucket(data, bucket, os.environ)
    if directory is not None and bucket_at == bucket_url(directory):
        return restore_directory(chosen, directory, elsewhere=None, environment=os.environ, now=now(), progress=show)
    with open_bucket(bucket_at, os.environ) as opened:
        if directory is not None:
            return restore_directory(
                chosen, directory, elsewhere=opened, environment=os.environ, now=now(), progress=show
            )
        url = find_database(data, database_url, os.environ)
        return restore_pieces(chosen, url, opened, environment=os.environ, now=now(), progress=show)


def _refuse_inside(folder: Path, directory: Path | None, bucket_at: str | None) -> None:
    """Raise Misconfigured where the backup would lie in what is backed up: it would be lost with it, and grow."""
    parts = urlsplit(bucket_at or "")
    bucket = Path(unquote(parts.path)) if parts.scheme == "file" else None
    for inside in filter(None, (directory, bucket)):
        if folder.resolve().is_relative_to(inside.resolve()):
            raise Misconfigured(f"{folder} lies in {inside}, and would be lost with it: give a folder elsewhere.")


@contextmanager
def _disk_faults(folder: Path) -> Iterator[None]:
    """Say of a disk's error what it means for the backups."""
    try:
        yield
    except OSError as error:
        where = error.filename or folder
        raise ServerError(
            f"{where}: {error.strerror}. What was begun is no backup; complete ones in {folder} are as they were."
        ) from error


def _say_made(made: Manifest, folder: Path, kept: int, as_json: bool) -> None:
    if as_json:
        facts = {"backup": made.name, "rows": made.moment.rows, "dump_bytes": made.dump.bytes, "kept": kept}
        copied = asdict(made.objects) if made.objects else None
        typer.echo(json.dumps(facts | {"objects": copied, "secrets": made.secrets}))
        return
    rows = made.moment.rows
    typer.echo(f"backup {made.name}: {rows['bronze']:,} sales in bronze, {rows['silver']:,} in silver")
    if made.objects:
        objects = made.objects
        typer.echo(f"objects: {objects.count:,} in the bucket, {objects.copied:,} of them new in {folder}")
        if objects.replaced:
            typer.echo(f"{objects.replaced:,} objects were replaced in the bucket; the copy keeps the first", err=True)
        if objects.left_out:
            typer.echo(f"{objects.left_out:,} objects were left out, too large or oddly named: see above", err=True)
    if made.secrets:
        typer.echo(f"{folder}/secrets holds what signs the devices' tokens: keep {folder} as closed as the server")
    else:
        typer.echo("no JWT secret is known here: keep it elsewhere, or no device's token counts afterwards", err=True)
    typer.echo(f"{kept} backup{'s' if kept > 1 else ''} in {folder}")


def _say_restored(restored: Restored, folder: Path, dry_run: bool, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(asdict(restored)))
        return
    rows, would = restored.rows, "would be " if dry_run else ""
    typer.echo(
        f"backup {restored.backup} {would}restored: {rows['bronze']:,} sales in bronze, {rows['silver']:,} in silver"
    )
    typer.echo(f"objects: {restored.objects:,} good ones, {restored.there:,} of them there already")
    for word, keys in (("damaged", restored.damaged), ("missing", restored.missing)):
        if keys:
            more = f" and {len(keys) - NAMED_MAX:,} more" if len(keys) > NAMED_MAX else ""
            typer.echo(f"{word}: {', '.join(keys[:NAMED_MAX])}{more}", err=True)
    if restored.damaged or restored.missing:
        typer.echo("their sales are in the dump if they were loaded by then; else devices are asked for them", err=True)
    if dry_run:
        return
    if restored.roles:
        typer.echo(f"roles made anew, without login or membership: {', '.join(restored.roles)}")
    if not restored.has_secret:
        typer.echo(
            "no JWT secret was brought back: set SUPABASE_JWT_SECRET to what signed the devices' tokens; "
            f"{folder}/secrets has it, if the backup knew it"
        )
    typer.echo(
        f"{restored.devices:,} devices will ask again about all that they keep. Next:\n"
        "  start the server\n"
        "  scout-server devices list                # revoke again who was revoked since the backup\n"
        "  scout-server devices confirm-revoked     # until then no token is renewed, and codes are void\n"
        "  scout-server audit                       # once devices have called home: whether anything is missing"
    )
