"""The endpoints over every form of bucket: uploads are written through, and a bucket that is away stops only them."""

import gzip
from datetime import date

import psycopg
import pytest
from bucket_forms import SUPABASE_KEY, Form
from endpoints import batch, bearer, running
from programs import data_folder, scout_server, started
from psycopg_pool import ConnectionPool
from scripted_server import Answer, scripted_server
from structlog.testing import capture_logs
from test_loader import rows, until

from server.buckets import open_bucket
from server.config import now
from server.embedded import dsn_of
from server.loader import load

URL = "/storage/v1/object/scout-ingest/"
KEY = f"{now().date()}/pi-05/data.jsonl"
SALE = b'{"transaction_id":"t1"}'


def test_an_upload_lies_in_the_bucket_and_is_loaded(pool: ConnectionPool, form: Form) -> None:
    """A device calls the bucket scout-ingest, whatever it is called and wherever it lies."""
    jsonl, key = batch(1, 3)
    with running(pool, form.bucket) as server:
        sent = {"content": gzip.compress(jsonl), "headers": bearer(server.device())}
        first, again = (server.client.post(URL + key, **sent) for _ in range(2))

        assert (first.status_code, first.json()["Key"]) == (200, f"scout-ingest/{key}")
        assert again.json()["code"] == "KeyAlreadyExists"
        assert form.bucket.get(key, 1000) == sent["content"]
        assert load(pool, form.bucket, today=date(2026, 1, 20)).accepted == 3


def test_a_bucket_that_is_away_stops_only_what_needs_it(pool: ConnectionPool) -> None:
    """An upload is told to come again, as is a load; sales still come in by the other path."""
    with scripted_server() as script, capture_logs() as logs:
        script.answers[:] = [Answer(503)]
        with (
            open_bucket(f"supabase+{script.url}/scout", SUPABASE_KEY) as bucket,
            running(pool, bucket) as server,
        ):
            device, service = bearer(server.device()), bearer(server.service())
            upload = server.client.post(f"{URL}{KEY}", content=SALE, headers=device)
            asked = server.client.post("/load-bronze-from-storage", headers=service)
            posted = server.client.post("/ingest-transaction", content=SALE, headers=device)
            healthy = server.client.get("/healthz")

    assert (upload.status_code, upload.json()["code"]) == (500, "InternalError")
    assert (asked.status_code, "asked again later" in asked.json()["message"]) == (503, True)
    assert (posted.status_code, healthy.status_code) == (200, 200)
    assert [entry["event"] for entry in logs].count("bucket_unavailable") == 3


def test_load_takes_every_form_and_sweeps_on_demand(form: Form, database_url: str) -> None:
    """Also what lies in an old folder; keys come from the environment and go nowhere."""
    form.bucket.put_new("2001-01-01/pi-05/data.jsonl", SALE)
    told = scout_server("load", "--sweep", SCOUT_BUCKET=form.url, DATABASE_URL=database_url, **form.environment)

    assert (told.returncode, told.stdout.split(",")[0]) == (0, "1 found")
    assert [secret for secret in form.environment.values() if secret in told.stdout + told.stderr] == []


def test_a_bucket_that_is_not_there_is_one_line_and_exit_1(form: Form, database_url: str) -> None:
    """Whatever its form."""
    form.destroy()
    told = scout_server("load", "--bucket", form.url, "--database-url", database_url, **form.environment)

    assert (told.returncode, told.stdout, len(told.stderr.splitlines())) == (1, "", 1)
    assert "there is no bucket" in told.stderr or "is not there" in told.stderr


@pytest.mark.parametrize("form", ["moto"], indirect=True)
def test_up_keeps_its_objects_elsewhere_when_told_so(form: Form) -> None:
    """Its loader finds them there, and it has no folder of its own."""
    with (
        data_folder() as data,
        started("up", data, "--data", data, "--bucket", form.url, **form.environment) as server,
        server.client() as client,
    ):
        uploaded = client.post(f"{URL}{KEY}", content=SALE, headers=bearer(server.token()))
        loaded = client.post("/load-bronze-from-storage", headers=bearer(server.service_token()))
        assert (uploaded.status_code, loaded.status_code) == (200, 200)
        assert form.bucket.get(KEY, 100) == SALE
        with psycopg.connect(dsn_of(data), autocommit=True) as connection:
            # The loader's own loop may have been first.
            until(lambda: rows(connection, "select object_key from scout_bronze.transactions_raw") == [(KEY,)])
        assert not (data / "bucket").exists()
        assert not any(secret in line for line in server.output for secret in form.environment.values())
