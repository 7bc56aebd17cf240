"""`devices`: who may deliver, and how a new one is let in."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import datetime
from typing import Annotated

import psycopg
import typer

from server import fleet, tokens
from server.commands.options import AsJson, Data, DatabaseUrl, Yes, duration
from server.config import find_database, now

SAID_CHARACTERS_MAX = 40
CODE_DAYS_MAX = 30

app = typer.Typer(help="The devices: who may deliver, and how a new one is let in.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="The device's id, such as pi-05.", metavar="NAME")]


@app.command(name="list")
def list_(data: Data = None, database_url: DatabaseUrl = None, as_json: AsJson = False) -> None:
    """Show every device: whether it is let in, how long its newest token counts, when it was heard last."""
    with _connected(data, database_url) as connection:
        known, held = fleet.devices(connection, now()), fleet.renewals_held_since(connection)
    if as_json:
        typer.echo(json.dumps([_fields(device) for device in known], default=str))
        return
    typer.echo(f"{'device':<24}{'state':<10}{'token until':<18}{'last heard':<18}version")
    for device in known:
        typer.echo(
            f"{device.device_id:<24}{device.state:<10}{_minute(device.token_expires_at):<18}"
            f"{_minute(device.heard_at):<18}{_plain(device.version)}"
        )
    if not known:
        typer.echo("no device is known yet: scout-server devices code NAME lets one in")
    if held:
        typer.echo(f"no token is renewed since {_minute(held)}: scout-server devices confirm-revoked", err=True)


@app.command()
def show(name: Name, data: Data = None, database_url: DatabaseUrl = None, as_json: AsJson = False) -> None:
    """Show one device, with every token that was issued to it. Tokens are known by their ids; none is kept."""
    with _connected(data, database_url) as connection:
        device, issued = fleet.device(connection, name, now()), fleet.list_tokens(connection, name, now())
    if as_json:
        typer.echo(json.dumps(_fields(device) | {"tokens": [asdict(token) for token in issued]}, default=str))
        return
    rows = {
        "device": device.device_id,
        "state": device.state,
        "source": device.source,
        "added": _minute(device.added_at),
        "enrolled": _minute(device.enrolled_at),
        "revoked": _minute(device.revoked_at),
        "code until": _minute(device.code_expires_at),
        "last heard": _minute(device.heard_at),
        "version": _plain(device.version),
    }
    for label, text in rows.items():
        typer.echo(f"{label:<12}{text}")
    for token in issued:
        typer.echo(f"{'token':<12}{token.jti}  until {_minute(token.expires_at)}  {token.state}")


@app.command()
def add(name: Name, data: Data = None, database_url: DatabaseUrl = None) -> None:
    """Make a device known, without letting it in yet: 'devices code' or 'tokens issue' does that."""
    with _connected(data, database_url) as connection:
        added = tokens.add_device(connection, name)
    typer.echo(f"added device {name}" if added else f"device {name} was known already")


@app.command()
def code(
    name: Name,
    *,
    days: Annotated[int, typer.Option(min=1, max=CODE_DAYS_MAX, help="How long the code is good.")] = 2,
    server: Annotated[
        str, typer.Option(help="Address by which devices reach this server, for the command that is shown.")
    ] = "https://SERVER",
    data: Data = None,
    database_url: DatabaseUrl = None,
    as_json: AsJson = False,
) -> None:
    """Print a one-time code with which this device can be enrolled, and the command to type there.

    A new device is added. Codes made for it before are void. Of a device that is known, revoked or not, the code ends
    the key and the tokens that it has, when it is used: so does a Pi take another's place, or come back with its key
    lost. It goes on under its name, with its spool.
    """
    life = duration(f"{days}d")
    with _connected(data, database_url) as connection:
        at = now()
        made, added = fleet.new_code(connection, name, life, at)
        is_revoked = fleet.device(connection, name, at).revoked_at is not None
    command = f"sudo scout-agent enrol --server {server} --code {made}"
    if as_json:
        answer = {"device_id": name, "code": made, "expires_at": at + life, "device_added": added, "command": command}
        typer.echo(json.dumps(answer, default=str))
        return
    if added:
        typer.echo(f"added device {name}", err=True)
    if is_revoked:
        typer.echo(f"{name} is revoked: whoever uses this code lets it in again, with a new key", err=True)
    typer.echo(f"code for {name}: {made}\ngood once, until {_minute(at + life)}. On the device:\n  {command}")


@app.command()
def revoke(name: Name, *, data: Data = None, database_url: DatabaseUrl = None, yes: Yes = False) -> None:
    """Shut a device out from its next request on, at bucket, endpoint and heartbeat, and let it renew no token.

    Its sales stay in its spool. Codes that were made for it are void. 'devices restore' takes it back.
    """
    with _connected(data, database_url) as connection:
        fleet.device(connection, name, now())
        if not yes:
            typer.confirm(f"{name} will deliver nothing more. Revoke it?", abort=True)
        done = fleet.revoke(connection, name, now())
    typer.echo(f"{name} is revoked" if done else f"{name} was revoked before")


@app.command()
def restore(name: Name, data: Data = None, database_url: DatabaseUrl = None) -> None:
    """Take a revocation back: the device's key and its tokens count as before.

    Where the device itself was stolen, don't: 'devices code' lets another one in under its name, and ends the key.
    """
    with _connected(data, database_url) as connection:
        done = fleet.restore(connection, name, now())
    typer.echo(f"{name} is let in again" if done else f"{name} was not revoked")


@app.command(name="confirm-revoked")
def confirm_revoked(*, data: Data = None, database_url: DatabaseUrl = None, yes: Yes = False) -> None:
    """After a restore from a backup: confirm who is revoked, and let tokens be renewed again.

    The backup forgot what was revoked since. Revoke that again, then confirm; until then tokens count as long as they
    last, and no other is issued to a device.
    """
    with _connected(data, database_url) as connection:
        if fleet.renewals_held_since(connection) is None:
            typer.echo("nothing waits to be confirmed: tokens are renewed")
            return
        revoked = [device for device in fleet.devices(connection, now()) if device.revoked_at]
        for device in revoked:
            typer.echo(f"{device.device_id:<24}revoked {_minute(device.revoked_at)}")
        typer.echo(f"{len(revoked)} devices are revoked")
        if not yes:
            typer.confirm("Is nobody missing from this list?", abort=True)
        fleet.confirm_revoked(connection)
    typer.echo("tokens are renewed again")


@contextmanager
def _connected(data: Data, database_url: DatabaseUrl) -> Iterator[psycopg.Connection]:
    with psycopg.connect(find_database(data, database_url, os.environ), autocommit=True) as connection:
        yield connection


def _fields(device: fleet.Device) -> dict[str, object]:
    return {**asdict(device), "state": device.state}


def _minute(at: datetime | None) -> str:
    return f"{at:%Y-%m-%d %H:%M}" if at else "-"


def _plain(said: str | None) -> str:
    """What a device said, without what would move a terminal's cursor: whoever holds its token says what he likes."""
    return "".join(character if character.isprintable() else "·" for character in (said or "-")[:SAID_CHARACTERS_MAX])
