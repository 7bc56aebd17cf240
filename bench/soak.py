"""`make soak`: 1,000 simulated devices upload and call home for ten minutes, and every sale is accounted for.

Starts `scout-server up` and a fleet (fleet_generator.py), each in processes of their own on this machine. When the
tills have stopped and every device is settled, each layer of the warehouse must hold what was sold: each record once
in bronze, each sale once in silver, to the cent. Prints what was seen. Exit status 1 when anything is wrong.

    SCOUT_SOAK_DEVICES   so many (1,000)
    SCOUT_SOAK_SECONDS   for so long (600)
    SCOUT_TEST_SEED      replays the tills of a run
"""

import json
import os
import random
import shutil
import subprocess
import sys
import threading
from collections import Counter
from dataclasses import asdict, dataclass
from decimal import Decimal
from pathlib import Path
from statistics import median
from typing import Any

import httpx
import load
import msgspec
import psycopg
from fleet_generator import BUSY, PAGES, Seen
from psycopg.rows import class_row
from simulated_device import Plan

sys.path.append(str(Path(__file__).resolve().parents[1] / "deploy" / "demo"))
from house import PROGRAMS, Server, new_folder, stop, tail, wait_for

GENERATOR = Path(__file__).parent / "fleet_generator.py"
HELD = Path(__file__).parent / "soak.sql"
UPLOADS = ("bucket", "endpoint")
MEBIBYTE = 1024 * 1024
GROWTH_BYTES_MAX = 64 * MEBIBYTE
"""Between the first third of the time and the last: the same as a flood of sales may cost."""
GOOD = (200, 400, *BUSY)
"""A bucket says 400 where an object is there already; any other 400 is noted as strange."""
BUSY_SHARE_MAX = 0.01
ETL_S_MAX = 60.0
"""No row waits as long for the ETL, which looks every five seconds; only one that hangs does."""
MUST_HAPPEN = (
    "offline",
    "reboots",
    "sent by both",
    "sent twice",
    "answer lost",
    "damaged",
    "sent when asked",
    "was there",
    "duplicate rows",
    "answered settled",
)
"""What a soak without it would not have tried."""


@dataclass(frozen=True, slots=True)
class Held:
    """What the warehouse holds at the end."""

    bronze_rows: int
    bronze_records: int
    silver_sales: int
    silver_pesos: Decimal
    gold_pesos: Decimal
    gaps: int
    forks: int
    refused_lines: int
    loads_left: int
    deadlocks: int
    etl_p50_s: float
    etl_max_s: float
    etl_p95_s: int  # below which the system itself says that 95 of 100 rows were


@dataclass(frozen=True, slots=True)
class Soaked:
    """All that was seen of one soak."""

    plan: Plan
    seen: Seen
    held: Held
    audit: dict[str, Any]
    audit_status: int
    memory_bytes: tuple[int, ...]  # of the server's process, each second
    server_s: float  # on processors, the server's process alone
    errors: Counter[str]  # the server's own log, by event

    @property
    def growth_bytes(self) -> int:
        """How much more memory the last third of the time took than the first."""
        third = len(self.memory_bytes) // 3
        return int(median(self.memory_bytes[-third:]) - median(self.memory_bytes[:third]))

    def problems(self) -> list[str]:
        """What is wrong, in words."""
        seen, held, sold = self.seen, self.held, self.seen.sold
        pesos = Decimal(sold.centavos) / 100
        bad = Counter(f"{kind} {status}" for kind, status, _, _ in seen.answers if status not in GOOD)
        busy = [answer for answer in seen.answers if answer[1] in BUSY]
        missing = sum(epoch["missing"] + epoch["lost"] + epoch["unsettled"] for epoch in self.audit["epochs"])
        heads = sum(epoch["head"] for epoch in self.audit["epochs"])
        never = [what for what in MUST_HAPPEN if not seen.did.get(what)]
        checks = {
            "nothing was sold, or nothing twice": not 0 < sold.sales < sold.records,
            f"never happened: {', '.join(never)}": bool(never),
            f"answers that no device should get (0: the connection broke): {bad}": bool(bad),
            f"strange answers: {Counter(seen.strange)}": bool(seen.strange),
            "told to wait without being told how long": any(wait_s is None for *_, wait_s in busy),
            f"told to wait {len(busy)} times": len(busy) > BUSY_SHARE_MAX * len(seen.answers),
            f"{seen.unsettled_rows} records are not settled": seen.unsettled_rows > 0,
            f"devices that had more to say when time was up: {seen.undone}": bool(seen.undone),
            f"the database's generation changed: {len(seen.generations)}": len(seen.generations) != 1,
            f"the audit is not clean: {self.audit['problems']}": self.audit_status != 0 or not self.audit["clean"],
            f"{missing} sales are missing": missing != 0,
            f"the audit knows {heads} of {sold.records} records": heads != sold.records,
            f"bronze has {held.bronze_rows} rows, {held.bronze_records} records of {sold.records}": not (
                held.bronze_rows == held.bronze_records == sold.records
            ),
            f"silver has {held.silver_sales} of {sold.sales} sales": held.silver_sales != sold.sales,
            f"silver sums to {held.silver_pesos} of {pesos}": held.silver_pesos != pesos,
            f"gold sums to {held.gold_pesos} of {pesos}": held.gold_pesos != pesos,
            f"gaps: {held.gaps}": held.gaps != 0,
            f"forks: {held.forks}": held.forks != 0,
            f"lines in quarantine: {held.refused_lines}": held.refused_lines != 0,
            f"loads not moved: {held.loads_left}": held.loads_left != 0,
            f"deadlocks: {held.deadlocks}": held.deadlocks != 0,
            f"the server's errors: {self.errors}": bool(self.errors),
            f"memory grew by {self.growth_bytes / MEBIBYTE:.0f} MiB": self.growth_bytes > GROWTH_BYTES_MAX,
            f"a row waited {held.etl_max_s:.0f} s for the ETL": held.etl_max_s > ETL_S_MAX,
            f"by its own measure 95 of 100 rows were in gold within {held.etl_p95_s} s": held.etl_p95_s > ETL_S_MAX,
        }
        return [what for what, is_wrong in checks.items() if is_wrong]

    def table(self) -> str:
        """The figures, for people."""
        seen, held, plan = self.seen, self.held, self.plan
        grew = f"{self.growth_bytes / MEBIBYTE:+.0f} MiB from the first third to the last"
        verdict = "clean" if self.audit["clean"] else "NOT CLEAN"
        lines = []
        lines.append(
            f"{plan.devices:,} devices for {plan.seconds:.0f} s on {os.cpu_count()} cores, seed {plan.seed}: "
            f"{seen.sold.records:,} records of {seen.sold.sales:,} sales, settled {seen.drained_s:.0f} s after the last"
        )
        for kind in (*UPLOADS, "heartbeat", *PAGES):
            took_ms = [ms for name, status, ms, _ in seen.answers if name == kind and status not in (0, *BUSY)]
            lines.append(f"  {kind:15} {len(took_ms):8,} answers  {_latencies(took_ms)}")
        busy = sum(status in BUSY for _, status, _, _ in seen.answers)
        did = ", ".join(f"{what} {count:,}" for what, count in sorted(seen.did.items()))
        lines.append(f"  told to wait    {busy:8,} times")
        lines.append(f"  fleet           {did}")
        lines.append(
            f"  warehouse       bronze {held.bronze_rows:,}, silver {held.silver_sales:,}, pesos {held.silver_pesos:,}"
            f"; gaps {held.gaps}, forks {held.forks}, deadlocks {held.deadlocks}, audit {verdict}"
        )
        lines.append(
            f"  ETL             moved half within {held.etl_p50_s:.1f} s, all within {held.etl_max_s:.1f} s; 95 of 100 "
            f"in gold within {held.etl_p95_s} s, as it measures itself"
        )
        settled_s = sorted(seen.settled_after_s) or [0.0]
        lines.append(
            f"  receipts        p50 {_percentile(settled_s, 50):.1f} s, p99 {_percentile(settled_s, 99):.1f} s, "
            f"{settled_s[-1]:.1f} s at most after the upload; calls home every {plan.heartbeat_every_s:.0f} s"
        )
        lines.append(
            f"  server          {max(self.memory_bytes) / MEBIBYTE:.0f} MiB at most, "
            f"{grew}, {self.server_s:.0f} s of processor"
        )
        return "\n".join(lines)


def soak(plan: Plan) -> Soaked:
    """Run a fleet against a server of its own, from the first sale to the audit."""
    folder = new_folder()
    server = Server(folder)
    try:
        server.start()
        assert server.process
        secret = (server.data / "secrets" / "jwt-secret").read_text().strip()
        tokens_file = folder / "tokens"
        load.devices(server.command("dsn"), secret, plan.devices, tokens_file)
        cookie_file = folder / "cookie"
        cookie_file.write_text(_signed_in(server))
        began_s = load.processor_s(server.process.pid)
        seen, memory_bytes = _fleet(server, tokens_file, cookie_file, plan)
        server_s = load.processor_s(server.process.pid) - began_s
        wait_for(
            lambda: server.row("loads_due") == (0,), plan.drain_s_max, lambda: f"loads are left:\n{tail(server.log)}"
        )
        with psycopg.connect(server.command("dsn"), row_factory=class_row(Held)) as connection:
            held = connection.execute(HELD.read_bytes()).fetchone()
        assert held
        audited = subprocess.run(
            [PROGRAMS / "scout-server", "audit", "--json", "--data", server.data],
            stdout=subprocess.PIPE,
            check=False,
        )
        audit, errors = json.loads(audited.stdout), _errors(server.log)
        return Soaked(plan, seen, held, audit, audited.returncode, memory_bytes, server_s, errors)
    finally:
        stop([server.process])
        shutil.rmtree(folder, ignore_errors=True)


def _signed_in(server: Server) -> str:
    """Sign in to the fleet's page as an operator does; return the cookie."""
    token = (server.data / "secrets" / "service-token").read_text().strip()
    answer = httpx.post(f"{server.base_url}/fleet/sign-in", data={"token": token}, trust_env=False)
    assert answer.status_code == 303, answer.status_code
    return answer.headers["set-cookie"].partition(";")[0]


def _fleet(server: Server, tokens_file: Path, cookie_file: Path, plan: Plan) -> tuple[Seen, tuple[int, ...]]:
    """Run the fleet to its end, and look at the server's memory each second meanwhile."""
    assert server.process
    command = [sys.executable, str(GENERATOR), "--url", server.base_url, "--tokens", str(tokens_file)]
    command += ["--cookie", str(cookie_file)]
    given = json.dumps(asdict(plan))
    memory_bytes: list[int] = []
    ended = threading.Event()

    def watch(pid: int) -> None:
        while not ended.wait(1.0):
            memory_bytes.append(_resident_bytes(pid))

    watching = threading.Thread(target=watch, args=(server.process.pid,))
    watching.start()
    try:
        fleet = subprocess.run([*command, "--plan", given], stdout=subprocess.PIPE, check=True)
    finally:
        ended.set()
        watching.join()
    return msgspec.json.decode(fleet.stdout, type=Seen), tuple(memory_bytes)


def _resident_bytes(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _errors(log: Path) -> Counter[str]:
    """What the server's log says at level error, and what is no event of its own."""
    errors: Counter[str] = Counter()
    for line in log.read_text(errors="replace").splitlines():
        try:
            event = json.loads(line)
        except json.JSONDecodeError:
            continue  # what `up` says to whoever starts it
        if event["level"] in ("error", "critical"):
            errors[event["event"]] += 1
    return errors


def _latencies(took_ms: list[float]) -> str:
    """Percentiles, and whether the later ones took longer, of latencies in the order of their answers."""
    third = len(took_ms) // 3
    if not third:
        return "too few to say more"
    ordered_ms = sorted(took_ms)
    percentiles = "  ".join(f"p{percent} {_percentile(ordered_ms, percent):7.1f} ms" for percent in (50, 99))
    by_the_end = median(took_ms[-third:]) / median(took_ms[:third])
    return f"{percentiles}  max {ordered_ms[-1]:7.1f} ms  p50 by the end {by_the_end:.1f} times the first's"


def _percentile(ordered: list[float], percent: int) -> float:
    return ordered[min(len(ordered) - 1, len(ordered) * percent // 100)]


def main() -> int:
    """Soak, print, return the exit status."""
    plan = Plan(
        seed=int(os.environ.get("SCOUT_TEST_SEED") or random.SystemRandom().getrandbits(32)),
        devices=int(os.environ.get("SCOUT_SOAK_DEVICES", "1000")),
        seconds=float(os.environ.get("SCOUT_SOAK_SECONDS", "600")),
        sale_every_s=15.0,
        seal_after_s=10.0,
        heartbeat_every_s=60.0,
        drain_s_max=600.0,
    )
    print(f"SCOUT_TEST_SEED={plan.seed} replays this run's tills", flush=True)
    soaked = soak(plan)
    print(soaked.table())
    problems = soaked.problems()
    for problem in problems:
        print(f"WRONG: {problem}")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
