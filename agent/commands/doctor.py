"""`doctor`: why a device doesn't deliver, and a bundle for those who help."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import orjson
import typer

from agent import VERSION
from agent.clock import SystemClock
from agent.commands.options import ConfigOption, JsonOption, columns, path_of, uses_colours
from agent.config import Config
from agent.errors import LocalFault
from agent.screen import draw_end, draw_finding

if TYPE_CHECKING:
    import httpx

    from agent.doctor.finding import Finding

EXAMPLES = """\b
Examples:
  sudo scout-agent doctor
  sudo scout-agent doctor --bundle /tmp/shop-05.tar.gz
  sudo scout-agent doctor --json | jq .findings"""


def doctor(
    config: ConfigOption = None,
    *,
    as_json: JsonOption = False,
    bundle: Annotated[
        Path | None,
        typer.Option(
            "--bundle",
            readable=False,
            help="Also write this .tar.gz for those who help. It holds no secret and no sale.",
        ),
    ] = None,
) -> None:
    """Find out why this device does not deliver.

    Checks everything between the till and the server, one after the other, and says what to do about it. Nothing is
    stored, here or at the server. What hangs on something broken is not checked. Exit status: 0 all is well, 1
    somebody has to see to something, 2 broken.
    """
    from agent.doctor.finding import exit_status  # noqa: PLC0415  (only this command needs a network)
    from agent.doctor.round import examination  # noqa: PLC0415
    from agent.transport import trusted_by  # noqa: PLC0415

    if bundle and bundle.exists():
        raise typer.BadParameter(f"{bundle} exists already: name another file with --bundle")
    findings: list[Finding] = []
    for finding in examination(path_of(config), clock=SystemClock(), client_of=_client, trusted_by=trusted_by):
        findings.append(finding)
        if not as_json:
            typer.echo("\n".join(_lines(finding)))
    ending = exit_status(findings)
    answer = orjson.dumps({"exit_status": ending, "findings": findings}).decode()
    if bundle:
        _write_bundle(bundle, path_of(config), answer)
    if as_json:
        typer.echo(answer)
        raise typer.Exit(ending)
    results = {finding.check: finding.result for finding in findings}
    typer.echo("\n".join(["", *draw_end(results, ending, width=columns(), colours=uses_colours())]))
    if bundle:
        typer.echo(f"Written: {bundle}. Send it to the back office.")
    raise typer.Exit(ending)


def _lines(finding: "Finding") -> list[str]:
    return draw_finding(
        finding.check, finding.result, finding.message, finding.next_step, width=columns(), colours=uses_colours()
    )


def _write_bundle(file: Path, config_file: Path, answer: str) -> None:
    from agent.bundle import parts_of, secrets_of, write_bundle  # noqa: PLC0415
    from agent.status import places_in, status_of  # noqa: PLC0415

    clock = SystemClock()
    places, _ = places_in(config_file)
    try:
        status = orjson.dumps(status_of(config_file, clock=clock, version=VERSION).status.to_fields()).decode()
    except LocalFault as fault:
        status = str(fault)
    parts = {"doctor.json": answer, "status.json": status} | parts_of(config_file, places.spool_file, clock=clock)
    write_bundle(file, parts, secrets_of(config_file, places.token_file, places.device_key_file), clock)


def _client(config: Config) -> "httpx.Client":
    """As the daemon's, but not as patient: a person waits."""
    from agent.doctor.network import TIMEOUT_S  # noqa: PLC0415
    from agent.transport import client_of  # noqa: PLC0415

    client = client_of(config)
    client.timeout = TIMEOUT_S
    client.headers["User-Agent"] += " doctor"
    return client
