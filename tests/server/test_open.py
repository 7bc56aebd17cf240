"""`--open`: the seed's curl without a token, from this machine, and nothing more."""

from collections.abc import Iterator

import pytest
from endpoints import Endpoints, bearer, outlaws, running
from programs import data_folder, scout_server, started
from psycopg_pool import ConnectionPool
from structlog.testing import capture_logs

from server.buckets.folder import FolderBucket
from server.config import Address
from server.errors import Misconfigured
from server.tokenless import FORWARDED, refuse_open_to_others
from wire.receipt import IngestAnswer

URL = "/functions/v1/ingest-transaction"
SALE = b'{"store_id":"102","peso_value":150.50}'
CURL = {"x-device-id": "pi-05", "Content-Type": "application/json"}


@pytest.fixture
def server(pool: ConnectionPool, bucket: FolderBucket) -> Iterator[Endpoints]:
    """Run the endpoints, open."""
    with running(pool, bucket, is_open=True) as endpoints:
        yield endpoints


def landed(server: Endpoints) -> list[tuple[str, str]]:
    """Devices and payloads in bronze."""
    return server.rows("select device_id, payload from scout_bronze.transactions_raw")


def test_the_curl_without_a_token_works_at_once_and_its_device_is_made_known(server: Endpoints) -> None:
    """The curl without a token works at once, and its device is made known."""
    with capture_logs() as logs:
        answers = [server.client.post(URL, content=SALE, headers=CURL) for _ in range(2)]

    assert [IngestAnswer.parse(answer.content).accepted for answer in answers] == [1, 1]
    assert landed(server) == [("pi-05", SALE.decode())] * 2
    assert [line["device_id"] for line in logs if line["event"] == "device_added_without_token"] == ["pi-05"]


def test_without_open_the_curl_needs_a_token(pool: ConnectionPool, bucket: FolderBucket) -> None:
    """Without --open the curl needs a token."""
    with running(pool, bucket) as server:
        assert server.client.post(URL, content=SALE, headers=CURL).status_code == 401
        assert landed(server) == []


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "shop.example.com"}, 403),
        ({"Host": "192.168.1.7:8700"}, 403),
        ({"Host": "localhost:8700@shop.example.com"}, 403),
        ({"Origin": "http://127.0.0.1:8700"}, 403),
        ({"Origin": "null"}, 403),
        *(({name: "203.0.113.7"}, 403) for name in FORWARDED),
        ({"x-device-id": ""}, 400),
        ({"x-device-id": "Pi 05"}, 400),
        ({"x-device-id": "019a0000-0000-7000-8000-000000000001"}, 400),
    ],
)
def test_only_a_program_on_this_machine_that_names_a_device_gets_in(
    server: Endpoints, headers: dict[str, str], status: int
) -> None:
    """Only a program on this machine that names a device gets in; anybody else leaves no trace."""
    answer = server.client.post(URL, content=SALE, headers=CURL | headers)

    assert answer.status_code == status, answer.text
    assert answer.json()["message"]
    assert landed(server) == []
    assert server.rows("select device_id from scout_edge.devices") == []


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:1", "127.0.0.1", "[::1]:8700"])
def test_this_machines_own_names_are_taken(server: Endpoints, host: str) -> None:
    """This machine's own names are taken."""
    assert server.client.post(URL, content=SALE, headers=CURL | {"Host": host}).status_code == 200


def test_the_missing_device_is_asked_for(server: Endpoints) -> None:
    """The missing device is asked for by the header's name."""
    answer = server.client.post(URL, content=SALE, headers={"Content-Type": "application/json"})

    assert answer.status_code == 400
    assert "x-device-id" in answer.json()["message"]


def test_a_revoked_device_stays_out(server: Endpoints) -> None:
    """A revoked device stays out."""
    server.device("pi-05")
    with server.pool.connection() as connection:
        connection.execute("update scout_edge.devices set revoked_at = now() where device_id = 'pi-05'")

    assert server.client.post(URL, content=SALE, headers=CURL).status_code == 403
    assert landed(server) == []


def test_a_token_that_is_sent_is_checked_as_ever(server: Endpoints) -> None:
    """A token that is sent is checked as ever."""
    bad = {name: token for name, token in outlaws(server).items() if token}

    assert len(bad) > 10
    for name, token in bad.items():
        answer = server.client.post(URL, content=SALE, headers=CURL | bearer(token))
        assert answer.status_code in (401, 403), name
    assert landed(server) == []


@pytest.mark.parametrize(
    "path",
    [
        "/storage/v1/object/scout-ingest/2026-01-20/pi-05/data.jsonl",
        "/rest/v1/rpc/heartbeat",
        "/load-bronze-from-storage",
    ],
)
def test_every_other_door_stays_closed(server: Endpoints, path: str) -> None:
    """Every other door stays closed."""
    answer = server.client.post(path, content=SALE, headers=CURL)

    assert answer.status_code in (400, 401)
    assert "authorization" in answer.json()["message"].lower()


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.7", "shop.example.com"])  # noqa: S104
def test_it_never_opens_to_another_machine(host: str) -> None:
    """It never opens to another machine."""
    with pytest.raises(Misconfigured, match="127"):
        refuse_open_to_others(Address(host, 8700))


def test_up_and_serve_open_say_so_loudly_and_refuse_other_addresses() -> None:
    """`up` and `serve` say so loudly, and refuse to open to other machines."""
    with data_folder() as data:
        refused = [
            scout_server("up", "--data", data, "--open", "--listen", "0.0.0.0:0"),
            scout_server(
                *("serve", "--database-url", "postgresql:///none", "--bucket", "file:///", "--open"),
                *("--listen", "0.0.0.0:0"),
                SUPABASE_JWT_SECRET="x" * 40,
            ),
        ]
        with started("up", data, "--data", data, "--open") as server, server.client() as client:
            assert client.post(URL, content=SALE, headers=CURL).status_code == 200
            said = "".join(server.output)

    assert [answer.returncode for answer in refused] == [1, 1]
    assert all("--open" in answer.stderr and "127.0.0.1" in answer.stderr for answer in refused)
    assert "OPEN" in said
    assert "open_without_token" in said
