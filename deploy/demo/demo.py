"""`make demo`: three tills, an outage, a kill; every sale in gold, to the cent.

Starts one server with everything embedded and three agents, each a process with its own spool. The tills drop
the committed sample into the agents' folders; the server is stopped in the middle and started again; one agent
is killed with SIGKILL while its spool is not empty, and restarted. Then everything drains, and every hop is
counted and summed independently: the tills from the files they wrote, the spools with SQLite, bronze, silver
and gold with SQL. Exit status 1 and the first difference if anything disagrees.

Leaves nothing running and nothing behind.
"""

import gzip
import json
import shutil
import signal
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from time import monotonic

from house import (
    NOTHING,
    HouseFailed,
    Server,
    Shop,
    Total,
    new_folder,
    stop,
    total_of,
    wait_until_drained,
)
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

SAMPLE = Path(__file__).resolve().parent / "sample"
STORES = ("367", "406", "343")
KILLED = "pi-406"
SALES_PER_FILE = 29
FEED_S = 12.0
DRAIN_TIMEOUT_S = 90.0

console = Console()


@dataclass
class Till:
    """The sales of one shop, in the files in which it will write them."""

    shop: Shop
    files: list[list[bytes]]
    written: list[bytes]

    def sell(self, number: int) -> None:
        """Write file `number` as a till might: JSONL, an array, or a file for each sale."""
        if number >= len(self.files):
            return
        sales, renamed = self.files[number], number % 2 == 0
        match number % 3:
            case 0:
                self.shop.drop(f"sales-{number:04d}.jsonl", b"".join(sale + b"\n" for sale in sales), renamed=renamed)
            case 1:
                self.shop.drop(f"sales-{number:04d}.json", b"[" + b",\n".join(sales) + b"]", renamed=renamed)
            case _:
                for position, sale in enumerate(sales):
                    self.shop.drop(f"sale-{number:04d}-{position:02d}.json", sale, renamed=renamed)
        self.written += sales


@dataclass(frozen=True)
class Story:
    """What happened on the way."""

    waited_in_outage: int
    held_when_killed: int


def main() -> int:
    """Run the demo; return its exit status."""
    began = monotonic()
    folder = new_folder()
    server = Server(folder)
    tills: list[Till] = []
    try:
        with _bars() as bars:
            console.print("starting the server and three agents")
            server.start()
            for store in STORES:
                device = f"pi-{store}"
                shop = Shop(device, folder / device, server.base_url, server.token_for(device))
                lines = gzip.decompress((SAMPLE / f"{device}.jsonl.gz").read_bytes()).splitlines()
                files = [lines[at : at + SALES_PER_FILE] for at in range(0, len(lines), SALES_PER_FILE)]
                tills.append(Till(shop, files, []))
                shop.start()
            story = _sell_through_an_outage(server, tills, bars)
            written = sum(len(till.written) for till in tills)
            settled = bars.add_task("settled", total=written)
            wait_until_drained(
                server,
                [till.shop for till in tills],
                DRAIN_TIMEOUT_S,
                lambda open_rows: bars.update(settled, completed=max(0, written - open_rows)),
            )
        return _show(server, tills, story, took_s=monotonic() - began)
    except HouseFailed as failure:
        console.print(f"[red]The demo failed:[/] {failure}")
        return 1
    finally:
        stop(till.shop.process for till in tills)
        stop([server.process])
        shutil.rmtree(folder, ignore_errors=True)


def _sell_through_an_outage(server: Server, tills: Sequence[Till], bars: Progress) -> Story:
    """Feed every file: a third with the server, a third without it, a third with it again."""
    tasks = [bars.add_task(f"{till.shop.device} sells", total=sum(map(len, till.files))) for till in tills]
    rounds = max(len(till.files) for till in tills)
    pause, waited, held = threading.Event(), 0, 0
    for number in range(rounds):
        if number == rounds // 3:
            stop([server.process])
            console.print("the server is stopped; the tills go on")
        if number == rounds // 2:
            held = _kill_one(tills)
        if number == rounds * 2 // 3:
            waited = sum(till.shop.status()["rows_not_sent"] for till in tills)
            if not waited:
                raise HouseFailed("no sale was waiting in the outage")
            server.start()
            console.print(f"the server is back; {waited:,} sales were waiting")
        for till, task in zip(tills, tasks, strict=True):
            till.sell(number)
            bars.update(task, completed=len(till.written))
        pause.wait(FEED_S / rounds)
    return Story(waited, held)


def _kill_one(tills: Sequence[Till]) -> int:
    """Kill one agent while its spool is not empty, and start it again; return what it held."""
    (shop,) = (till.shop for till in tills if till.shop.device == KILLED)
    shop.kill()
    held: int = shop.status()["rows_not_sent"]
    if not held:
        raise HouseFailed(f"{KILLED} was killed with an empty spool")
    console.print(f"{KILLED} was killed with {held:,} sales in its spool; it starts again")
    shop.start()
    return held


def _show(server: Server, tills: Sequence[Till], story: Story, *, took_s: float) -> int:
    """Print the table; return 1 when a hop differs from what was committed, or from another."""
    committed = json.loads((SAMPLE / "expected.json").read_text())["total"]
    expected = Total(committed["transactions"], Decimal(committed["peso_value"]))
    bronze, bronze_pesos, silver, silver_pesos, gold, gold_pesos = server.row("layers")
    gaps, forks, duplicates, quarantined, lag_s = server.row("counts")
    hops = {
        "till": sum((total_of(till.written) for till in tills), NOTHING),
        "spooled": sum((till.shop.spooled() for till in tills), NOTHING),
        "accepted": sum((till.shop.accepted() for till in tills), NOTHING),
        "bronze": Total(bronze, bronze_pesos),
        "silver": Total(silver, silver_pesos),
        "gold": Total(gold, gold_pesos),
    }
    table = Table(title="From the tills to gold, through an outage")
    table.add_column("hop")
    table.add_column("transactions", justify="right")
    table.add_column("sum of peso_value", justify="right")
    for name, hop in hops.items():
        table.add_row(name, f"{hop.sales:,}", f"{hop.pesos:,}", style=None if hop == expected else "red")
    table.add_section()
    table.add_row("expected", f"{expected.sales:,}", f"{expected.pesos:,}")
    console.print(table)
    console.print(f"gaps {gaps}, forks {forks}, duplicates sent {duplicates}, quarantined lines {quarantined}")
    console.print(
        f"sales waiting in the outage {story.waited_in_outage:,}, held when killed {story.held_when_killed:,}"
    )
    console.print(f"lag from bronze to gold at most {lag_s:.2f} s, {took_s:.0f} s in all")
    for name, hop in hops.items():
        if hop != expected or not expected.sales:
            console.print(f"[red]{name} differs:[/] {hop} instead of {expected}")
            return 1
    for name, count in {"gaps": gaps, "forks": forks, "quarantined lines": quarantined}.items():
        if count:
            console.print(f"[red]{count} {name}[/] where none should be")
            return 1
    console.print("[green]Every sale is in gold, once.[/]")
    return 0


def _bars() -> Progress:
    return Progress(
        TextColumn("{task.description:<14}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
    )


if __name__ == "__main__":
    # Ctrl-C and SIGTERM both end by way of `finally`.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    sys.exit(main())
