"""`make bench`: how long the ingest endpoint takes at 200 sales a second, beside a bare answer in the same run.

Starts `scout-server up` (PostgreSQL, loader and ETL included) and a load generator, each in processes of their own on
this machine, and prints p50, p90 and p99 from the moment each sale was due. What a machine is worth shows in the bare
answers: `/healthz` at the same rate, measured before and after. Exit status 1 if a sale was not accepted.

    SCOUT_BENCH_RATE     sales a second (200)
    SCOUT_BENCH_SECONDS  for so long (30)
"""

import os
import shutil
import sys
from pathlib import Path

import load

sys.path.append(str(Path(__file__).resolve().parents[1] / "deploy" / "demo"))
from house import Server, new_folder, stop

RATE = float(os.environ.get("SCOUT_BENCH_RATE", "200"))
SECONDS = float(os.environ.get("SCOUT_BENCH_SECONDS", "30"))
DEVICES = 50
CONNECTIONS = 64
BARE_SECONDS = max(2.0, SECONDS / 5)


def main() -> int:
    """Measure and print; return the exit status."""
    folder = new_folder()
    server = Server(folder)
    try:
        server.start()
        assert server.process
        secret = (server.data / "secrets" / "jwt-secret").read_text().strip()
        tokens_file = folder / "tokens"
        load.devices(server.command("dsn"), secret, DEVICES, tokens_file)

        def measured(name: str, seconds: float, path: str = "") -> load.Load:
            return load.generate(
                server.base_url,
                tokens_file,
                rate=RATE,
                seconds=seconds,
                connections=CONNECTIONS,
                name=name,
                get=path,
            )

        measured("warm", 3.0)
        before = measured("before", BARE_SECONDS, "/healthz")
        began_s = load.processor_s(server.process.pid)
        ingest = measured("ingest", SECONDS)
        server_s = load.processor_s(server.process.pid) - began_s
        after = measured("after", BARE_SECONDS, "/healthz")
        peak_bytes = load.peak_bytes(server.process.pid)
    finally:
        stop([server.process])
        shutil.rmtree(folder, ignore_errors=True)

    print(f"{RATE:.0f} requests/s on {os.cpu_count()} cores, {len(ingest.answers)} sales, load generator beside it")
    for name, seen in (("healthz before", before), ("ingest", ingest), ("healthz after", after)):
        print(f"  {name:15} " + "  ".join(f"p{p} {seen.percentile_ms(p):7.1f} ms" for p in (50, 90, 99)))
    bare_ms = max(before.percentile_ms(50), after.percentile_ms(50))
    print(f"  ingest p50 is {ingest.percentile_ms(50) / bare_ms:.1f} times a bare answer's, p99", end=" ")
    print(f"{ingest.percentile_ms(99) / max(before.percentile_ms(99), after.percentile_ms(99)):.1f} times")
    print(f"  the server's process: {server_s / len(ingest.answers) * 1e6:.0f} µs a sale, loader and ETL included")
    print(f"  and {peak_bytes / 1e6:.0f} MB at most")
    refused = len(ingest.answers) - len(ingest.of(200)) + ingest.unsent
    if refused:
        print(f"{refused} sales were not accepted: this machine can't take {RATE:.0f} a second now")
    return 1 if refused else 0


if __name__ == "__main__":
    sys.exit(main())
