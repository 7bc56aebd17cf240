"""`tokens`: with which devices and services come in."""

import json
import os
from dataclasses import asdict
from typing import Annotated

import psycopg
import typer

from server import fleet, secrets, tokens
from server.commands.options import AsJson, Data, DatabaseUrl, Yes, directory_of, duration
from server.config import find_data, find_database, now

app = typer.Typer(help="Tokens with which devices and services come in.", no_args_is_help=True)


@app.command()
def issue(
    *,
    name: Annotated[str, typer.Option(help="The device's id, such as pi-05.")],
    days: Annotated[int, typer.Option(help="How long the token is good: a device's at most 30.")] = 30,
    role: Annotated[str, typer.Option(help="edge_uploader for a device, service_role for a service.")] = (
        tokens.EDGE_UPLOADER
    ),
    data: Data = None,
    database_url: DatabaseUrl = None,
    as_json: AsJson = False,
) -> None:
    """Print a new token, and nothing else: EDGE_TOKEN=$(scout-server tokens issue --name pi-05).

    A device that is not known yet is added. The token is signed with SUPABASE_JWT_SECRET, or with the secret
    that 'up' keeps in its directory.
    """
    url = find_database(data, database_url, os.environ)
    directory = directory_of(data, database_url)
    secret = secrets.need_jwt_secret(directory, os.environ)
    if directory is not None:
        secrets.refuse_other_secret(directory, secret, now())
    with psycopg.connect(url, autocommit=True) as connection, connection.transaction():
        added = role == tokens.EDGE_UPLOADER and tokens.add_device(connection, name)
        token = tokens.issue(connection, secret, name, role, days=days, now=now())
    if added:
        typer.echo(f"added device {name}", err=True)
    if as_json:
        identity = tokens.read(token, secret, now())
        typer.echo(json.dumps({"token": token, "device_added": added, **identity.claims}))
    else:
        typer.echo(token)


@app.command(name="list")
def list_(
    *,
    name: Annotated[str | None, typer.Option(help="Only this device's or service's.")] = None,
    due: Annotated[
        str | None,
        typer.Option(help="What expires before a device that is expected in so long (7d, 12h) will be there."),
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="Also what counts no longer.")] = False,
    data: Data = None,
    database_url: DatabaseUrl = None,
    as_json: AsJson = False,
) -> None:
    """Show the tokens that count, by their ids: whose, until when, and whether they renew themselves.

    --due 7d shows one line for each device whose newest token ends within 7 days, or has ended. One with a key renews
    it by itself when it next has a line; to one without, a new token must be brought before.
    """
    if due is not None and every:
        raise typer.BadParameter("--due shows each device's newest token: leave --all out.")
    with psycopg.connect(find_database(data, database_url, os.environ), autocommit=True) as connection:
        issued = fleet.list_tokens(connection, name, now())
    shown = fleet.due(issued, now() + duration(due)) if due else [one for one in issued if every or one.counts]
    if as_json:
        typer.echo(json.dumps([asdict(token) for token in shown], default=str))
        return
    typer.echo(f"{'device or service':<24}{'id':<38}{'until':<18}{'state':<16}{'renewed':<10}last heard")
    for token in shown:
        heard = f"{token.heard_at:%Y-%m-%d %H:%M}" if token.heard_at else "-"
        typer.echo(
            f"{token.subject:<24}{token.jti:<38}{token.expires_at:%Y-%m-%d %H:%M}  {token.state:<16}"
            f"{'by itself' if token.renews_itself else 'by hand':<10}{heard}"
        )


@app.command()
def rotate(
    names: Annotated[list[str] | None, typer.Argument(help="Devices.", metavar="[NAME]...")] = None,
    *,
    every: Annotated[bool, typer.Option("--all", help="Every device that is let in.")] = False,
    at_once: Annotated[bool, typer.Option("--at-once", help="Let the present tokens count no longer.")] = False,
    data: Data = None,
    database_url: DatabaseUrl = None,
    yes: Yes = False,
) -> None:
    """Have devices renew their tokens at their next call home.

    The tokens they have go on counting until then, unless --at-once is given, as after a theft: then each device is
    refused, and renews within a minute, by its key. A device without a key would wait for a token by hand.
    """
    if bool(names) == every:
        raise typer.BadParameter("which devices? Give names, or --all.")
    with psycopg.connect(find_database(data, database_url, os.environ), autocommit=True) as connection:
        known = fleet.devices(connection, now())
        chosen = [one for one in known if not one.revoked_at] if every else _named(connection, names or [])
        without = [one.device_id for one in chosen if one.enrolled_at is None]
        if at_once and without and not yes:
            told = f"{len(without)} of {len(chosen)} devices have no key and can't renew: {', '.join(without[:10])}."
            typer.confirm(f"{told} They will deliver nothing until a token is brought. Go on?", abort=True)
        fleet.rotate(connection, [one.device_id for one in chosen], at_once=at_once, now=now())
    typer.echo(f"{len(chosen) - len(without)} devices will renew their tokens; {len(without)} have no key")


@app.command()
def revoke(
    jti: Annotated[str, typer.Argument(help="The token's id: see 'tokens list'.", metavar="ID")],
    *,
    data: Data = None,
    database_url: DatabaseUrl = None,
    yes: Yes = False,
) -> None:
    """Shut one token out, from the next request on. Its device's others go on counting.

    A device with a key renews within a minute. To shut the device out as well: 'devices revoke'.
    """
    with psycopg.connect(find_database(data, database_url, os.environ), autocommit=True) as connection:
        if not yes:
            typer.confirm("Whoever holds this token will be refused with it. Revoke it?", abort=True)
        subject = fleet.revoke_token(connection, jti, now())
    typer.echo(f"a token of {subject} is revoked" if subject else "it was revoked before")


@app.command(name="change-secret")
def change_secret(
    *,
    leaked: Annotated[
        bool, typer.Option("--leaked", help="Let what the present secret signed count no longer, from the start on.")
    ] = False,
    data: Data = None,
    yes: Yes = False,
) -> None:
    """Make another JWT secret for the server in --data, in force when 'up' is started again.

    Tokens that the secret before signed count for 30 days more, in which every device renews at least once; with
    --leaked they don't, and each device is refused and renews at once, by its key. A device without a key needs
    another token by hand. Where SUPABASE_JWT_SECRET is set, change it there instead: see docs/identity.md.
    """
    directory = find_data(data, os.environ)
    if directory is None:
        raise typer.BadParameter("which directory? Give --data DIR, or set SCOUT_DATA.")
    if not yes:
        typer.confirm(f"Every token that counts in {directory} is to be signed anew. Change the secret?", abort=True)
    secrets.change_jwt_secret(directory, os.environ, leaked=leaked)
    typer.echo("the secret is changed: start 'scout-server up' again")


def _named(connection: psycopg.Connection, names: list[str]) -> list[fleet.Device]:
    return [fleet.device(connection, name, now()) for name in names]
