"""`pause`, `resume` and `send`: what a technician tells the running agent about its uploads."""

import random
from collections.abc import Iterator
from typing import Annotated

import typer

from agent.board import ReportedSend
from agent.clock import Clock, SystemClock
from agent.commands.options import ConfigOption, load
from agent.config import Config
from agent.errors import LocalFault
from agent.lock import is_running
from agent.orders import Order, Orders, PauseOrder, SendOrder
from agent.pause import PAUSE_MAX_S, Pause, duration_s

OBEYED_WITHIN_S = 5.0
TOLD_WITHIN_S = 5.0
"""The daemon publishes what it noted within seconds; without its word, what is left tells."""

LOOK_S = 0.2
NOT_RUNNING = "the agent is not running: start it (systemctl start scout-agent)"


PAUSE_EXAMPLES = """\b
Examples:
  scout-agent pause               for an hour
  scout-agent pause --for 2h30m   for so long
  scout-agent resume              end it now"""

SEND_EXAMPLES = """\b
Examples:
  scout-agent send      before the shop closes, or to see whether it delivers
  scout-agent status    what was delivered, and what was not"""


def pause(
    config: ConfigOption = None,
    *,
    duration: Annotated[str, typer.Option("--for", help="How long: 90s, 30m, 2h; 24h at most.")] = "1h",
) -> None:
    """Upload nothing for a while. Sales are still taken, the agent still calls home; it survives a reboot."""
    for_s = duration_s(duration)
    if for_s is None or not 0.0 < for_s <= PAUSE_MAX_S:
        raise typer.BadParameter(f"--for {duration}: it must be such as 90s, 30m or 2h, and at most 24h")
    loaded = load(config)
    typer.echo(f"Uploads pause for {duration}. {give(loaded, PauseOrder(for_s))}")


def resume(config: ConfigOption = None) -> None:
    """End a pause."""
    typer.echo(f"Uploads go on. {give(load(config), PauseOrder(0.0))}")


def send(config: ConfigOption = None) -> None:
    """Deliver now what is here, and show how it goes.

    Seals it, waits for nothing, and ignores quiet hours once.
    """
    loaded, clock = load(config), SystemClock()
    folder = loaded.spool_file.parent
    if not is_running(folder):
        raise LocalFault(f"{NOT_RUNNING}; it then delivers by itself")
    if Pause(folder, clock).left_s() > 0.0:
        raise LocalFault("uploads are paused: end that with scout-agent resume, then send")
    for line in _sent(loaded, clock):
        typer.echo(line)


def give(config: Config, order: Order) -> str:
    """Give an order to the daemon; return in one sentence whether it was obeyed. Raises LocalFault."""
    orders, clock = Orders(config.spool_file.parent), SystemClock()
    orders.give(order)
    if not is_running(config.spool_file.parent):
        return f"But {NOT_RUNNING}; it obeys then."
    until_s = clock.monotonic_s() + OBEYED_WITHIN_S
    while orders.is_open(type(order)):
        if clock.monotonic_s() >= until_s:
            return "The agent is in the middle of a transfer and obeys when that ends."
        clock.sleep(LOOK_S)
    return "The agent obeys."


def _sent(config: Config, clock: Clock) -> Iterator[str]:
    """Order it, and say how many sales are left whenever that changes. Raises LocalFault when that fails."""
    from agent.holdings import read_state  # noqa: PLC0415

    order = SendOrder(f"{random.SystemRandom().getrandbits(64):016x}")
    ended, shown, done_s = None, -1, float("inf")
    while True:
        state = read_state(config.spool_file)
        left = state.unsealed_rows + state.waiting_rows
        if left != shown:
            yield f"{left:,} sales to send"
        if shown < 0:
            Orders(config.spool_file.parent).give(order)
        shown = left
        if ended is not None:
            break
        if not is_running(config.spool_file.parent):
            raise LocalFault(f"the agent stopped meanwhile: {NOT_RUNNING}")
        clock.sleep(LOOK_S)
        if not Orders(config.spool_file.parent).is_open(SendOrder):
            done_s = min(done_s, clock.monotonic_s())
            ended = _told(config, order)
            if ended is None and clock.monotonic_s() - done_s > TOLD_WITHIN_S:
                ended = ReportedSend(order.id, left == 0, "see scout-agent status")
    if not ended.is_delivered:
        raise LocalFault(f"not delivered: {ended.message}. The agent goes on trying by itself")
    if state.set_aside_rows:
        yield f"{state.set_aside_rows:,} sales are set aside: see scout-agent set-aside list"
    yield "Delivered."


def _told(config: Config, order: SendOrder) -> ReportedSend | None:
    """How the order ended, in the daemon's word; None until it is published."""
    from agent.published import published_for  # noqa: PLC0415

    published = published_for(config.device.id, config.spool_file.parent)
    last = published.daemon.last_send if published and published.daemon else None
    return last if last and last.id == order.id else None
