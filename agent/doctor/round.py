"""The doctor's round: which checks there are, and what hangs on what, in the order in which a person would ask."""

import ssl
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import cache
from pathlib import Path

import httpx

from agent import BUILT_ON
from agent import config as configuration
from agent.clock import Clock
from agent.config import Config
from agent.doctor.finding import Check, Finding, Outcome, broken, examine, ok
from agent.doctor.machine import (
    account_of,
    check_clock,
    check_disk,
    check_folder,
    check_key,
    check_rights,
    check_service,
    check_spool,
    check_tail,
    check_token,
)
from agent.doctor.network import check_certificates, check_connections, check_names, check_proxy, hops_of, proxy_of
from agent.doctor.server import (
    ask_bucket,
    ask_endpoint,
    ask_heartbeat,
    check_accepted,
    check_offset,
    check_renewal,
    check_server,
)
from agent.doctor.till import check_local_http
from agent.errors import ConfigForbidden, CredentialsRefused, Misconfigured
from agent.files import signature_of
from agent.lock import is_running
from agent.token import TokenFile
from agent.upload import Connection


def examination(
    config_file: Path,
    *,
    clock: Clock,
    client_of: Callable[[Config], httpx.Client],
    trusted_by: Callable[[Config], ssl.SSLContext],
) -> Iterator[Finding]:
    """Make every check, each finding as soon as it is known. `client_of` and `trusted_by`: as the daemon has them."""
    with ExitStack() as opened:
        yield from examine(_checks(config_file, clock, lambda c: opened.enter_context(client_of(c)), trusted_by))


def _checks(
    config_file: Path,
    clock: Clock,
    client_of: Callable[[Config], httpx.Client],
    trusted_by: Callable[[Config], ssl.SSLContext],
) -> tuple[Check, ...]:
    # Loaded and asked when the first check needs it: no other does while the config is refused.
    config = cache(lambda: configuration.load(config_file))
    home = cache(lambda: config().spool_file.parent)
    account = cache(lambda: account_of(home()))
    urls = cache(lambda: _urls(config(), is_enrolled=enrolled()))
    hops = cache(lambda: hops_of(urls(), lambda url: proxy_of(url, config().upload.proxy)))
    client = cache(lambda: client_of(config()))
    connection = cache(lambda: Connection.of(config(), client(), token=lambda: _token(config().token_file)))
    heartbeat = cache(lambda: ask_heartbeat(connection()))
    device = cache(lambda: config().device.id)
    enrolled = cache(lambda: signature_of(config().device_key_file) is not None)
    on_config, on_service, on_token = ("config",), ("service",), ("server", "token")
    return (
        Check("config", lambda: _check_config(config_file, config)),
        Check("service", lambda: check_service(running=is_running(home())), on_config),
        Check("rights", lambda: check_rights(home(), config().token_file, account()), on_config),
        Check("spool", lambda: check_spool(config().spool_file, device(), clock), on_config),
        Check("disk", lambda: check_disk(home(), config().spool.disk_free_bytes_min), on_config),
        Check("folder", lambda: check_folder(config().folder.path, account()), on_config),
        Check("tail", lambda: check_tail(config().tail.path, account()), on_config),
        Check(
            "local HTTP",
            lambda: check_local_http(config().local_http.listen, config().local_http.socket),
            on_service,
        ),
        Check("clock", lambda: check_clock(clock, BUILT_ON)),
        Check("identity", lambda: check_key(config().device_key_file, device()), on_config),
        Check("token", lambda: check_token(config().token_file, device(), clock, enrolled=enrolled()), on_config),
        Check("proxy", lambda: check_proxy(hops()), on_config),
        Check("name", lambda: check_names(hops()), on_config),
        Check("connection", lambda: check_connections(hops()), ("name",)),
        Check(
            "certificate",
            lambda: check_certificates(hops(), trusted_by(config()), clock),
            ("connection",),
        ),
        Check("server", lambda: check_server(heartbeat()), ("certificate",)),
        Check("server clock", lambda: check_offset(heartbeat(), clock), ("server",)),
        Check("renewal", lambda: check_renewal(config(), client(), clock, enrolled=enrolled()), ("server", "identity")),
        Check("heartbeat", lambda: check_accepted(heartbeat(), "the heartbeat"), on_token),
        Check("bucket", lambda: check_accepted(ask_bucket(connection(), device()), "the bucket"), on_token),
        Check("endpoint", lambda: check_accepted(ask_endpoint(connection()), "the endpoint"), on_token),
    )


def _urls(config: Config, *, is_enrolled: bool) -> tuple[str, ...]:
    """Every address that this device asks."""
    return (config.heartbeat_url, config.bucket_url, config.ingest_url, *([config.token_url] if is_enrolled else []))


def _check_config(file: Path, config: Callable[[], Config]) -> Outcome:
    try:
        config()
    except ConfigForbidden:
        raise
    except Misconfigured as refused:
        return broken(str(refused), f"mend it: scout-agent config check --config {file}")
    return ok(f"{file} is good")


def _token(file: Path) -> str:
    """Without a token, the server still shows that it is there by refusing."""
    try:
        return TokenFile(file).read().text
    except CredentialsRefused:
        return "none"
