"""The alert rules speak of what is there: every metric, label, runbook and test. That they fire, promtool proves."""

import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import httpx
import pytest
from alerts import CHECKOUT, PROGRAMS, Selector, alerts, grouped_by, read, selectors
from house import Server, Shop, stop, tail, wait_for
from nginx import free_port
from prometheus_client.parser import text_string_to_metric_families
from sales import sales

Samples = dict[str, list[dict[str, str]]]
SEVERITIES = {"critical", "warning"}
OF_PROMETHEUS = {"job", "instance"}
"""Labels that each sample gets when it is scraped."""
EVENTS = {"status"}
"""Labels whose values are what happened; that a server fails is not to be had here."""


def samples(text: str) -> Samples:
    """The labels of every sample, by its name."""
    found: Samples = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found.setdefault(sample.name, []).append(dict(sample.labels))
    return found


def asked(url: str, **headers: str) -> Samples:
    """Scrape once."""
    answer = httpx.get(f"{url}/metrics", headers=headers, timeout=30)
    assert answer.status_code == 200, answer.text
    return samples(answer.text)


@pytest.fixture(scope="module")
def real(server: Server, folder: Path) -> Iterator[dict[str, Samples]]:
    """What a real server and a real agent say of themselves, after sales went from one to the other by both paths."""
    shops = [Shop(f"pi-{mode}", folder / mode, server.base_url, "", mode=mode) for mode in ("bucket", "endpoint")]
    agent, port = shops[0], free_port()
    with agent.config.open("a") as config:
        config.write(f'[local_http]\nlisten = "127.0.0.1:{port}"\n')
    try:
        made = sales(23, seed=1)
        for shop in shops:
            (shop.config.parent / "token").write_text(server.token_for(shop.device))
            shop.start()
            shop.drop("sales.json", b"[" + b",".join(islice(made, 10)) + b"]", renamed=True)
        wait_for(
            lambda: not any(shop.unsettled() for shop in shops) and server.row("loads_due") == (0,),
            60,
            lambda: f"not delivered:\n{tail(agent.log)}",
        )
        token = (server.data / "secrets" / "service-token").read_text().strip()
        by_hand = {"Authorization": f"Bearer {token}", "x-device-id": agent.device}
        paths = ("/ingest-transaction", "/functions/v1/ingest-transaction")
        for url in (*(f"{server.base_url}{path}" for path in paths), f"http://127.0.0.1:{port}{paths[0]}"):
            assert httpx.post(url, content=next(made), headers=by_hand).status_code == 200
        # Asked at once, so that the sale which was posted there still waits for its receipt.
        found: dict[str, Samples] = {"agent": asked(f"http://127.0.0.1:{port}")}

        def told() -> bool:
            found["server"] = asked(server.base_url, Authorization=f"Bearer {token}")
            return "scout_server_missing_rows" in found["server"]

        wait_for(told, 30, lambda: "the server does not tell what is missing")
        yield found
    finally:
        stop(shop.process for shop in shops)


def unmet(selector: Selector, real: Samples) -> list[str]:
    """What of a selector no real sample has."""
    at_hand = real.get(selector.name, [])
    if not at_hand:
        return [f"{selector.name} is not there"]
    return [
        f"{selector.name}{{{label}={value!r}}} is not there"
        for label, values in selector.labels.items()
        for value in values
        if not any(label in labels and (label in EVENTS or labels[label] == value) for labels in at_hand)
    ]


@pytest.mark.parametrize("program", PROGRAMS)
def test_every_metric_and_label_of_a_rule_is_really_there(program: str, real: dict[str, Samples]):
    """As the program itself shows them; a rule on a name that nothing has would never fire."""
    expressions = [rule["expr"] for rule in alerts(program)]
    used = [selector for expression in expressions for selector in selectors(expression)]
    own = [selector for selector in used if selector.name.startswith(f"scout_{program}_")]

    assert len({selector.name for selector in own}) >= 6
    assert len(real[program]) >= 15
    assert [problem for selector in own for problem in unmet(selector, real[program])] == []
    assert {selector.name for selector in used} - {selector.name for selector in own} == {"up"}


@pytest.mark.parametrize("program", PROGRAMS)
def test_rules_group_by_labels_that_are_really_there(program: str, real: dict[str, Samples]):
    """What is grouped away that nothing has is a mistake in writing."""
    grouped = {
        (selector.name, label)
        for rule in alerts(program)
        for label in grouped_by(rule["expr"]) - OF_PROMETHEUS
        for selector in islice(selectors(rule["expr"]), 1)
    }

    assert grouped
    assert [
        (name, label) for name, label in grouped if not any(label in labels for labels in real[program][name])
    ] == []


@pytest.mark.parametrize(("program", "config"), [("server", "prometheus.yml"), ("agent", "prometheus-device.yml")])
def test_rules_ask_for_the_jobs_of_the_example_config(program: str, config: str):
    """`up` is Prometheus' own; its job is a name that the config gives."""
    jobs = {scraped["job_name"] for scraped in read(config)["scrape_configs"]}
    used = {
        job
        for rule in alerts(program)
        for selector in selectors(rule["expr"])
        if selector.name == "up"
        for job in selector.labels["job"]
    }

    assert used == jobs
    assert read(config)["rule_files"] == [f"scout-{program}.rules.yml"]


def test_a_rule_on_something_that_is_not_there_is_noticed():
    """The check above sees a wrong name, a wrong label and a wrong value."""
    real = {"scout_server_devices_in_state": [{"state": "silent"}]}
    wrong = (
        'scout_server_devices_in_stat{state="silent"}',
        'scout_server_devices_in_state{stat="silent"}',
        'scout_server_devices_in_state{state=~"silent|sleepy"}',
    )

    assert [len(unmet(selector, real)) for text in wrong for selector in selectors(text)] == [1, 1, 1]
    assert unmet(*selectors('scout_server_devices_in_state{state="silent"} > 3'), real) == []


@pytest.mark.parametrize("program", PROGRAMS)
def test_each_alert_says_what_happened_what_to_do_and_where_it_is_told(program: str):
    """And its runbook is there."""
    rules = alerts(program)

    assert len(rules) >= 8
    assert len({rule["alert"] for rule in rules}) == len(rules)
    for rule in rules:
        said = rule["annotations"]
        assert rule["labels"].keys() == {"severity"}, rule["alert"]
        assert rule["labels"]["severity"] in SEVERITIES, rule["alert"]
        assert said.keys() == {"summary", "description", "runbook"}, rule["alert"]
        assert len(said["description"]) > len(said["summary"]) > 20, rule["alert"]
        assert re.fullmatch(r"docs/runbooks/[a-z-]+\.md", said["runbook"]), rule["alert"]
        assert (CHECKOUT / said["runbook"]).is_file(), said["runbook"]


@pytest.mark.parametrize("program", PROGRAMS)
def test_each_alert_has_a_test_that_it_fires_not_before_and_ends(program: str):
    """What they say of it, promtool checks: here, that none goes without."""
    checks: dict[str, list[bool]] = {rule["alert"]: [] for rule in alerts(program)}
    for test in read(f"scout-{program}.test.yml")["tests"]:
        if test["name"] in checks:
            checks[test["name"]] = [bool(check["exp_samples"]) for check in test["promql_expr_test"]]
            assert all(f'"{test["name"]}"' in check["expr"] for check in test["promql_expr_test"]), test["name"]

    assert checks
    for name, fires in checks.items():
        assert (fires[0], fires[-1], True in fires) == (False, False, True), name
