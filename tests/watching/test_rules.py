"""The alert rules in Debian's Prometheus: promtool's unit tests, and a real one that scrapes a real server."""

import json
import re
import ssl
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from alerts import PROGRAMS, PROMETHEUS, alerts, read
from certificates import Authority
from house import Server, stop, wait_for
from nginx import NAME, Nginx, an_nginx, free_port

pytestmark = pytest.mark.rules

ALERTS = [(program, rule["alert"]) for program in PROGRAMS for rule in alerts(program)]


def promtool(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run it."""
    return subprocess.run(["promtool", *arguments], capture_output=True, text=True, check=False, cwd=PROMETHEUS)


@pytest.mark.parametrize("program", PROGRAMS)
def test_the_rules_are_sound_and_pass_their_own_tests(program: str) -> None:
    """As whoever changes a threshold runs them."""
    checked = promtool("check", "rules", f"scout-{program}.rules.yml")
    tested = promtool("test", "rules", f"scout-{program}.test.yml")

    assert checked.returncode == 0, checked.stderr
    assert tested.returncode == 0, tested.stdout + tested.stderr


def test_the_example_configs_are_sound() -> None:
    """Both, as they are; that their files are there is for the machine that they are copied to."""
    for config in ("prometheus.yml", "prometheus-device.yml"):
        checked = promtool("check", "config", "--syntax-only", config)

        assert checked.returncode == 0, checked.stderr


@pytest.mark.parametrize(("program", "alert"), ALERTS)
def test_a_rule_that_never_or_always_fires_fails_its_tests(tmp_path: Path, program: str, alert: str) -> None:
    """So does one that waits for less or for longer than it should: the tests see what they are for."""
    tests = read(f"scout-{program}.test.yml")
    tests["rule_files"] = ["rules.yml"]
    tests["tests"] = [test for test in tests["tests"] if test["name"] == alert]
    (tmp_path / "test.yml").write_text(yaml.safe_dump(tests))
    (rule,) = [rule for rule in alerts(program) if rule["alert"] == alert]
    shorter = {"for": _half(rule["for"])} if "for" in rule else {}
    wrong = [{"expr": "vector(0) > 1"}, {"expr": "vector(1)"}, {"for": "2d"}, *([shorter] if shorter else [])]

    assert _passes(tmp_path, rule)
    assert [changes for changes in wrong if _passes(tmp_path, rule | changes)] == []


def _half(duration: str) -> str:
    """Half of a duration, in seconds."""
    return f"{int(duration[:-1]) * {'m': 60, 'h': 3600}[duration[-1]] // 2}s"


def _passes(folder: Path, rule: dict[str, Any]) -> bool:
    (folder / "rules.yml").write_text(yaml.safe_dump({"groups": [{"name": "one", "rules": [rule]}]}))
    return promtool("test", "rules", folder / "test.yml").returncode == 0


@dataclass(frozen=True)
class Prometheus:
    """It runs, with a folder of its own."""

    url: str
    folder: Path

    def ask(self, path: str, **query: str) -> Any:
        """Ask its API."""
        answer = httpx.get(f"{self.url}/api/v1/{path}", params=query, timeout=30, trust_env=False)
        return answer.json()["data"]

    def value(self, expression: str) -> float | None:
        """What an expression is now; None for nothing."""
        found = self.ask("query", query=expression)["result"]
        return float(found[0]["value"][1]) if found else None

    def firing(self) -> dict[str, dict[str, str]]:
        """What fires, each with what it says."""
        return {
            alert["labels"]["alertname"]: alert["annotations"]
            for alert in self.ask("alerts")["alerts"]
            if alert["state"] == "firing"
        }


@contextmanager
def a_prometheus(folder: Path, nginx: Nginx, authority: Authority, token_file: Path) -> Iterator[Prometheus]:
    """Run it with the example's config, made hasty, on the proxy's address and with an authority of the test's."""
    folder.mkdir()
    config = read("prometheus.yml")
    config["global"] = {"scrape_interval": "2s", "scrape_timeout": "2s", "evaluation_interval": "1s"}
    (job,) = config["scrape_configs"]
    job["static_configs"] = [{"targets": [f"{NAME}:{nginx.port}"]}]
    job["authorization"]["credentials_file"] = str(token_file)
    job["tls_config"] = {"ca_file": str(authority.file)}
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    rules = (PROMETHEUS / "scout-server.rules.yml").read_text()
    (folder / "scout-server.rules.yml").write_text(re.sub(r"\bfor: \d+[mhd]", "for: 3s", rules))
    checked = promtool("check", "config", folder / "prometheus.yml")
    assert checked.returncode == 0, checked.stderr
    port = free_port()
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [
                "prometheus",
                f"--config.file={folder}/prometheus.yml",
                f"--storage.tsdb.path={folder}/data",
                f"--web.listen-address={NAME}:{port}",
            ],
            stderr=log,
            stdout=log,
        )
    running = Prometheus(f"http://{NAME}:{port}", folder)

    def ready() -> bool:
        with suppress(httpx.TransportError):
            return httpx.get(f"{running.url}/-/ready", trust_env=False).status_code == 200
        return False

    try:
        wait_for(ready, 60, (folder / "log").read_text)
        yield running
    finally:
        stop([process])


@pytest.fixture(scope="module")
def authority(folder: Path) -> Authority:
    """Signs the proxy's certificate."""
    return Authority(folder)


def until(happened: Callable[[], bool], prometheus: Prometheus) -> None:
    """Wait for what Prometheus shall see."""
    wait_for(happened, 90, lambda: f"{prometheus.ask('targets')}\n{prometheus.ask('alerts')}")


def test_a_real_prometheus_scrapes_through_the_proxy_and_alerts(
    server: Server, folder: Path, authority: Authority
) -> None:
    """For a line that is refused, and for a server that ended; a new token needs no restart once the old is revoked."""
    kept = server.data / "secrets" / "service-token"
    token_file = folder / "copied-token"
    token_file.write_text(kept.read_text())
    with (
        an_nginx(folder / "nginx", server.port, authority.certificate()) as nginx,
        a_prometheus(folder / "prometheus", nginx, authority, token_file) as prometheus,
    ):
        until(lambda: prometheus.value('up{job="scout-server"}') == 1.0, prometheus)
        until(lambda: prometheus.value("scout_server_missing_rows") == 0.0, prometheus)
        at_first = prometheus.firing()

        headers = {"Authorization": f"Bearer {server.token_for('pi-05')}"}
        junk = f"{nginx.url}/storage/v1/object/scout-ingest/2026-01-20/pi-05/junk.jsonl"
        trusted = ssl.create_default_context(cafile=str(authority.file))
        httpx.post(junk, content=b"no sale\n", headers=headers, timeout=30, verify=trusted).raise_for_status()
        until(lambda: "ScoutSalesRefused" in prometheus.firing(), prometheus)
        said = prometheus.firing()["ScoutSalesRefused"]

        (old,) = json.loads(server.command("tokens", "list", "--name", "scout-server", "--json"))
        token_file.write_text(server.command("tokens", "issue", "--role", "service_role", "--name", "prometheus"))
        server.command("tokens", "revoke", old["jti"], "--yes")
        scrapes = "sum(scout_server_requests_total{status='200', route='/metrics'})"
        scraped = prometheus.value(scrapes) or 0.0
        until(lambda: (prometheus.value(scrapes) or 0.0) > scraped + 2, prometheus)
        after_revocation = prometheus.value('up{job="scout-server"}')

        until(lambda: "ScoutServerDown" not in prometheus.firing(), prometheus)
        stop([server.process])
        until(lambda: "ScoutServerDown" in prometheus.firing(), prometheus)

    assert "ScoutSalesRefused" not in at_first
    assert said["description"].startswith("1 lines or files")
    assert after_revocation == 1.0
