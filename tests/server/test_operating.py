"""`/metrics` and `/readyz`: true, cheap, and what docs/endpoints.md says."""

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
from agent_kit import until
from endpoints import Endpoints, batch, bearer, running, served
from fleets import Shop, a_fleet, one_of_each, open_shops
from programs import data_folder, up
from prometheus_client.parser import text_string_to_metric_families
from psycopg_pool import ConnectionPool

from server.bucket import BucketUnavailable
from server.buckets.folder import FolderBucket
from server.condition import CONDITIONS

DOCS = (Path(__file__).parents[2] / "docs" / "endpoints.md").read_text()
BATCH_URL = "/storage/v1/object/scout-ingest"


@pytest.fixture
def server(pool: ConnectionPool, bucket: FolderBucket, tmp_path: Path) -> Iterator[Endpoints]:
    """Run the endpoints, with a data directory as `up` has one."""
    with running(pool, bucket, data=tmp_path) as endpoints:
        yield endpoints


def scrape(server: Endpoints) -> dict[str, dict[tuple[str, ...], float]]:
    """Every sample by its name and the values of its labels, as Prometheus' own parser reads them."""
    answer = server.client.get("/metrics", headers=bearer(server.service()))
    assert answer.status_code == 200
    found: dict[str, dict[tuple[str, ...], float]] = {}
    for family in text_string_to_metric_families(answer.text):
        for sample in family.samples:
            found.setdefault(sample.name, {})[tuple(sample.labels.values())] = sample.value
    return found


def test_metrics_are_for_service_tokens(server: Endpoints):
    """An address is no proof: behind a proxy everybody comes from this machine."""
    assert server.client.get("/metrics").status_code == 401
    assert server.client.get("/metrics", headers=bearer(server.device())).status_code == 403
    assert server.client.get("/metrics", headers=bearer(server.service())).status_code == 200


def test_metrics_count_what_was_answered(server: Endpoints):
    """An upload that is there already is told from one that was refused."""
    token, (jsonl, key) = server.device(), batch(1, 2)
    for _ in range(3):
        server.client.post(f"{BATCH_URL}/{key}", content=jsonl, headers=bearer(token))
    server.client.get("/nowhere-at-all")

    requests = scrape(server)["scout_server_requests_total"]

    assert requests["POST", "/storage/v1/object/{path:path}", "200"] == 1
    assert requests["POST", "/storage/v1/object/{path:path}", "409"] == 2
    assert requests["GET", "other", "404"] == 1


def test_a_post_is_counted_under_the_path_that_it_came_by(server: Endpoints):
    """Two paths lead to one endpoint, and a rule on either sees its own."""
    paths, token = ("/ingest-transaction", "/functions/v1/ingest-transaction"), server.device()
    for count, path in enumerate(paths, start=1):
        for _ in range(count):
            server.client.post(path, json={"transaction_id": "1"}, headers=bearer(token))

    requests = scrape(server)["scout_server_requests_total"]

    assert [requests.get(("POST", path, "200")) for path in paths] == [1, 2]


def test_metrics_tell_how_the_fleet_stands(server: Endpoints, connection: psycopg.Connection):
    """Each state, the backlog, and what the server found out itself."""
    open_shops(connection, one_of_each())

    found = scrape(server)

    assert found["scout_server_devices"] == {(): 15}
    # One was silent for days, one was never heard, one is revoked.
    assert found["scout_server_devices_heard_last_hour"] == {(): 12}
    in_state = found["scout_server_devices_in_state"]
    assert {state for (state,) in in_state} == {condition.name for condition in CONDITIONS}
    assert min(in_state.values()) >= 1
    assert found["scout_server_missing_rows"] == {(): 17}
    assert found["scout_server_forked_rows"] == {(): 3}
    assert found["scout_server_quarantine_undecided"] == {("line",): 2, ("object",): 0}
    assert found["scout_server_devices_set_aside_rows"] == {(): 2000}
    assert found["scout_server_devices_oldest_sale_age_seconds"][()] > 12 * 86_400


def test_metrics_are_as_many_for_three_hundred_devices_as_for_none(server: Endpoints, connection: psycopg.Connection):
    """No label names a device."""
    scrape(server)
    few = {name: len(samples) for name, samples in scrape(server).items()}
    open_shops(connection, list(a_fleet(300)))
    many = {name: len(samples) for name, samples in scrape(server).items()}

    assert few == many


def test_every_metric_is_documented_and_nothing_else_is(server: Endpoints):
    """By its name and its type, as Prometheus reads them."""
    listed = dict(re.findall(r"^\| `(scout_server_\w+)` \| (\w+)", DOCS, re.MULTILINE))
    answer = server.client.get("/metrics", headers=bearer(server.service()))
    answer = server.client.get("/metrics", headers=bearer(server.service()))
    given = {
        f"{family.name}_total" if family.type == "counter" else family.name: family.type
        for family in text_string_to_metric_families(answer.text)
    }

    assert listed == given


def test_the_disk_of_the_data_directory_is_a_metric(server: Endpoints, tmp_path: Path):
    """As the system has it, give or take what others write meanwhile."""
    (free_bytes,) = scrape(server)["scout_server_disk_free_bytes"].values()

    assert free_bytes == pytest.approx(shutil.disk_usage(tmp_path).free, rel=0.05)


def test_a_server_without_a_data_directory_tells_of_no_disk(pool: ConnectionPool, bucket: FolderBucket):
    """`serve` keeps nothing of its own; and a directory that is gone fails no scrape."""
    with running(pool, bucket) as serve, running(pool, bucket, data=Path("/nowhere")) as up_without_disk:
        given = [scrape(serve), scrape(up_without_disk)]

    assert [len(found) > 10 for found in given] == [True, True]
    assert [found.get("scout_server_disk_free_bytes") for found in given] == [None, None]


def test_the_last_backup_is_a_metric(server: Endpoints, connection: psycopg.Connection):
    """When it was complete, in seconds since 1970; 0 before the first, so that an alert finds that, too."""
    before = scrape(server)["scout_server_last_backup_timestamp_seconds"]
    connection.execute("update scout_edge.settings set backed_up_at = '2026-01-21 02:30:00+00'")
    until(lambda: scrape(server)["scout_server_last_backup_timestamp_seconds"] != before, "it is seen")
    after = scrape(server)["scout_server_last_backup_timestamp_seconds"]

    assert list(before.values()) == [0]
    assert list(after.values()) == [1768962600]


@contextmanager
def away(connection: psycopg.Connection, postgres_url: str) -> Iterator[None]:
    """Let the test's database be away for a while."""
    name = connection.info.dbname
    with psycopg.connect(postgres_url, autocommit=True) as other:
        other.execute(f'alter database "{name}" allow_connections false'.encode())
        other.execute("select pg_terminate_backend(pid) from pg_stat_activity where datname = %s", [name])
        try:
            yield
        finally:
            other.execute(f'alter database "{name}" allow_connections true'.encode())


def test_the_database_being_away_is_a_metric(server: Endpoints, connection: psycopg.Connection, postgres_url: str):
    """And no failed scrape: what the process itself counts is told on."""
    token = server.service()
    with away(connection, postgres_url):
        answer = server.client.get("/metrics", headers=bearer(token))
        refused = server.client.get("/metrics", headers=bearer("a-token-of-nobody"))

    assert (answer.status_code, refused.status_code) == (200, 401)
    assert "scout_server_database_up 0.0" in answer.text
    assert "scout_server_committer_waiting_deliveries 0.0" in answer.text
    assert "scout_server_devices" not in answer.text


def test_it_is_ready_once_all_three_are(server: Endpoints):
    """It is ready once database, schema and bucket are; nobody needs a token to ask."""
    answer = server.client.get("/readyz")

    assert answer.status_code == 200
    assert answer.json() == {"status": "ready", "database": "answers", "schema": "current", "bucket": "answers"}


class LockedBucket(FolderBucket):
    """A bucket that lets nobody in."""

    def check(self) -> None:
        """Refuse."""
        raise BucketUnavailable("it does not answer.")


def test_which_one_is_not_ready_is_named(pool: ConnectionPool, tmp_path: Path, connection: psycopg.Connection):
    """A schema of another version, and a bucket that lets nobody in."""
    connection.execute("update scout_edge.models set checksum = 'older' where name = 'bronze/gaps'")
    with running(pool, LockedBucket(tmp_path / "bucket")) as server:
        answer = server.client.get("/readyz")

    assert answer.status_code == 503
    assert int(answer.headers["retry-after"]) > 0
    said = answer.json()
    assert (said["status"], said["database"]) == ("not ready", "answers")
    assert "scout-server migrate" in said["schema"]
    assert "does not answer" in said["bucket"]


def test_a_database_that_is_away_is_named(server: Endpoints, connection: psycopg.Connection, postgres_url: str):
    """A database that is away is named, and nothing is said of its schema."""
    with away(connection, postgres_url):
        answer = server.client.get("/readyz")

    assert answer.status_code == 503
    assert answer.json()["database"] == "does not answer"
    assert answer.json()["bucket"] == "answers"


def test_every_endpoint_is_on_its_page_and_no_other(pool: ConnectionPool, bucket: FolderBucket):
    """The routes of the application and docs/endpoints.md name the same methods and paths."""
    with running(pool, bucket) as server:
        routes = served(server.application)
    documented = re.findall(r"`(?:(GET|POST) )?(/[^` ?]*)`", "\n".join(re.findall(r"^\| `.*", DOCS, re.MULTILINE)))

    assert len(routes) > 15
    assert {path for path in routes if path not in {documented_path for _, documented_path in documented}} == set()
    assert {
        f"{method} {path}" for method, path in documented if method and path in routes and method not in routes[path]
    } == set()
    invented = {path for method, path in documented if method and path not in routes}
    assert invented <= {f"{BATCH_URL}/DAY/DEVICE/FILE"}


def test_a_device_that_is_heard_needs_no_name_in_a_label(server: Endpoints, connection: psycopg.Connection):
    """Not one character of a device is in the metrics."""
    open_shops(connection, [Shop("pi-very-special", version="0.1.0-odd")])

    text = server.client.get("/metrics", headers=bearer(server.service())).text

    assert "special" not in text
    assert "odd" not in text


def test_a_server_with_everything_embedded_is_ready_and_shows_its_uploads():
    """As an operator starts it: the token that it keeps signs in, and what a device uploads is counted."""
    with data_folder() as data, up(data) as program, program.client() as client:
        assert client.get("/readyz").json()["status"] == "ready"
        jsonl, key = batch(1, 2)
        sent = client.post(f"{BATCH_URL}/{key}", content=jsonl, headers=bearer(program.token()))
        signed_in = client.post("/fleet/sign-in", data={"token": program.service_token()})
        page = client.get("/fleet")
        style = client.get(re.findall(r'href="(/fleet/static/page.css[^"]*)"', page.text)[0])
        metrics = client.get("/metrics", headers=bearer(program.service_token())).text

    assert (sent.status_code, signed_in.status_code, page.status_code) == (200, 303, 200)
    assert '<span class="words">uploads arrived</span> <span class="value">100 %</span>' in page.text
    assert "pi-05" in page.text
    assert style.headers["content-type"] == "text/css; charset=utf-8"
    assert (
        'scout_server_requests_total{method="POST",route="/storage/v1/object/{path:path}",status="200"} 1.0' in metrics
    )
