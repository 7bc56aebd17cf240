"""The bucket's upload endpoint gives the answers of Supabase's storage server, and keeps what it promised."""

import socket
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import httpx
import pytest
from endpoints import DEADLINE_S, Endpoints, bearer, claims_of_device, outlaws, running, signed
from psycopg_pool import ConnectionPool

from server.buckets.folder import FolderBucket
from server.config import LIMITS

URL = "/storage/v1/object/scout-ingest/"
KEY = "2026-01-20/pi-05/data.jsonl"
BODY = b'{"store_id":"102","peso_value":150.50}\n'
ROW_REFUSED = "new row violates row-level security policy"


@pytest.fixture
def server(pool: ConnectionPool, bucket: FolderBucket):
    """Run the endpoints, with a small limit for objects."""
    with running(pool, bucket, object_bytes_max=4096) as endpoints:
        yield endpoints


def keys(bucket: FolderBucket) -> list[str]:
    """The keys of all objects."""
    return [listed.key for listed in bucket.list("")]


def meaning(response: httpx.Response) -> tuple[int, str, str]:
    """What a storage answer says: HTTP status, statusCode, code."""
    body = response.json()
    return response.status_code, body["statusCode"], body["code"]


def test_the_seeds_upload_is_stored_byte_for_byte_and_the_loader_is_woken(server: Endpoints, bucket: FolderBucket):
    """The seed's upload is stored byte for byte and the loader is woken."""
    headers = bearer(server.device(), Content_Type="application/octet-stream")
    response = server.client.post(URL + KEY, content=BODY, headers=headers)

    assert response.status_code == 200
    assert response.json()["Key"] == f"scout-ingest/{KEY}"
    assert len(response.json()["Id"]) == 36
    assert bucket.get(KEY, LIMITS.object_bytes_max) == BODY
    assert server.wakes.stored == [KEY]


@pytest.mark.parametrize("content", [BODY, b"other bytes"])
def test_a_second_upload_of_a_key_is_a_conflict_and_changes_nothing(
    server: Endpoints, bucket: FolderBucket, content: bytes
):
    """A second upload of a key is a conflict and changes nothing."""
    headers = bearer(server.device())
    server.client.post(URL + KEY, content=BODY, headers=headers)

    again = server.client.post(URL + KEY, content=content, headers=headers)

    assert meaning(again) == (400, "409", "KeyAlreadyExists")
    assert again.json()["message"] == "The resource already exists"
    assert bucket.get(KEY, LIMITS.object_bytes_max) == BODY


def test_of_concurrent_writers_of_one_key_exactly_one_wins(server: Endpoints, bucket: FolderBucket):
    """Of concurrent writers of one key exactly one wins."""
    headers = bearer(server.device())
    bodies = [b"%d" % number * 1000 for number in range(8)]
    with ThreadPoolExecutor(8) as threads:
        responses = list(
            threads.map(lambda body: httpx.post(server.base_url + URL + KEY, content=body, headers=headers), bodies)
        )

    won = [body for body, response in zip(bodies, responses, strict=True) if response.status_code == 200]
    assert won == [bucket.get(KEY, LIMITS.object_bytes_max)]
    assert {meaning(response) for response in responses if response.status_code != 200} == {
        (400, "409", "KeyAlreadyExists")
    }


OUTSIDE = (
    # Another folder, bucket, depth or name than DAY/DEVICE/FILE with the token's device.
    (URL + "2026-01-20/pi-06/data.jsonl", ("403", "AccessDenied")),
    (URL + "pi-05/data.jsonl", ("403", "AccessDenied")),
    (URL + "2026-01-20/pi-05/deeper/data.jsonl", ("403", "AccessDenied")),
    (URL + "2026-01-20/pi-05/", ("403", "AccessDenied")),
    (URL + "2026-01-20//data.jsonl", ("403", "AccessDenied")),
    (URL + "2026-99-99/pi-05/data.jsonl", ("403", "AccessDenied")),
    (URL + "2026-02-30/pi-05/data.jsonl", ("403", "AccessDenied")),
    (URL + "1999-12-31/pi-05/data.jsonl", ("403", "AccessDenied")),
    (URL + "20260120/pi-05/data.jsonl", ("403", "AccessDenied")),
    (URL + "2026-01-20/pi-05/data.txt", ("403", "AccessDenied")),
    (URL + "2026-01-20/pi-05/jsonl", ("403", "AccessDenied")),
    (URL + "2026-01-20/pi-05/.data.jsonl", ("403", "AccessDenied")),
    (URL + "2026-01-20/pi-05/a%20b.jsonl", ("403", "AccessDenied")),
    (URL + "2026-01-20/pi-05/" + "x" * 123 + ".jsonl", ("403", "AccessDenied")),
    (URL + "2026-01-20/%2e%2e/pi-06/x.jsonl", ("403", "AccessDenied")),
    (URL + "2026-01-20/pi-05/%2e%2e%2fpi-06%2fx.jsonl", ("403", "AccessDenied")),
    # No key at all.
    (URL, ("400", "InvalidKey")),
    (URL + "2026-01-20/pi-05/%252e%252e.jsonl", ("400", "InvalidKey")),
    (URL + "2026-01-20/pi-05/a%00.jsonl", ("400", "InvalidKey")),
    (URL + "2026-01-20/pi-05/a%5c.jsonl", ("400", "InvalidKey")),
    (URL + "2026-01-20/pi-05/%C3%A9.jsonl", ("400", "InvalidKey")),
    (URL + "2026-01-20/pi-05/a~.jsonl", ("400", "InvalidKey")),
    (URL + "2026-01-20/pi-05/a%ZZ.jsonl", ("400", "FST_ERR_BAD_URL")),
    # Another bucket.
    ("/storage/v1/object/other/" + KEY, ("404", "NoSuchBucket")),
    ("/storage/v1/object/upload/scout-ingest/" + KEY, ("404", "NoSuchBucket")),
)


def test_a_key_outside_the_devices_own_folders_is_refused(server: Endpoints, bucket: FolderBucket):
    """A key outside the device's own folders is refused."""
    headers = bearer(server.device())

    for path, expected in OUTSIDE:
        assert raw_post(server.base_url, path, headers, BODY) == ("400", *expected), path
    assert keys(bucket) == []
    assert server.wakes.count == 0


def test_every_name_that_the_policy_allows_is_taken(server: Endpoints, bucket: FolderBucket):
    """Every name that the policy allows is taken."""
    files = ["data.json", "data.jsonl.gz", "data.jsonl.zst", "d.gz", "A-1_2.3.json", "x" * 122 + ".jsonl"]
    days = ["2000-01-01", "2024-02-29", "2026-01-20"]
    wanted = sorted(f"{day}/pi-05/{file}" for day in days for file in files)
    headers = bearer(server.device())

    assert [server.client.post(URL + key, content=BODY, headers=headers).status_code for key in wanted] == [200] * 18
    assert keys(bucket) == wanted


NO_PLAIN_UPLOAD: tuple[tuple[str, dict[str, str], bytes, tuple[int, str, str]], ...] = (
    ("PUT", {}, BODY, (400, "403", "AccessDenied")),
    ("GET", {}, b"", (400, "403", "AccessDenied")),
    ("DELETE", {}, b"", (400, "403", "AccessDenied")),
    ("POST", {"x-upsert": "true"}, BODY, (400, "403", "AccessDenied")),
    ("POST", {}, b"", (400, "403", "AccessDenied")),
    ("POST", {}, b"x" * 4097, (400, "413", "EntityTooLarge")),
    ("POST", {"content-type": "garbage"}, BODY, (400, "415", "InvalidMimeType")),
    ("POST", {"content-type": "multipart/form-data; boundary=x"}, BODY, (400, "415", "InvalidMimeType")),
)


def test_what_is_no_plain_upload_is_refused(server: Endpoints, bucket: FolderBucket) -> None:
    """What is no plain upload is refused."""
    token = bearer(server.device())

    for method, headers, content, expected in NO_PLAIN_UPLOAD:
        answer = server.client.request(method, URL + KEY, content=content, headers=token | headers)
        assert meaning(answer) == expected, (method, headers)
    assert keys(bucket) == []


def test_an_upload_of_exactly_the_limit_is_taken(server: Endpoints, bucket: FolderBucket):
    """An upload of exactly the limit is taken."""
    response = server.client.post(URL + KEY, content=b"x" * 4096, headers=bearer(server.device()))

    assert response.status_code == 200
    assert keys(bucket) == [KEY]


@pytest.mark.parametrize("upsert", ["TRUE", "1", "false"])
def test_only_the_exact_word_true_asks_for_replacement(server: Endpoints, upsert: str):
    """Only the exact word true asks for replacement."""
    response = server.client.post(URL + KEY, content=BODY, headers=bearer(server.device(), x_upsert=upsert))

    assert response.status_code == 200


def test_a_body_without_content_length_is_refused(server: Endpoints, bucket: FolderBucket):
    """A body without content length is refused."""
    chunked = iter([BODY])
    response = server.client.post(URL + KEY, content=chunked, headers=bearer(server.device()))

    assert meaning(response) == (400, "403", "AccessDenied")
    assert keys(bucket) == []


def test_a_path_without_an_object_is_unknown(server: Endpoints):
    """A path without an object is unknown."""
    response = server.client.post("/storage/v1/object/scout-ingest", content=BODY, headers=bearer(server.device()))

    assert meaning(response) == (404, "404", "InvalidRequest")


def test_a_body_that_ends_early_leaves_nothing_and_the_key_is_free(server: Endpoints, bucket: FolderBucket):
    """A body that ends early leaves nothing and the key is free."""
    token = server.device()
    with connected(server.base_url) as line:
        line.sendall(head(URL + KEY, bearer(token), len(BODY)) + BODY[:10])
    response = server.client.post(URL + KEY, content=BODY, headers=bearer(token))

    assert response.status_code == 200
    assert bucket.get(KEY, LIMITS.object_bytes_max) == BODY
    assert list((bucket.folder / "~incoming").iterdir()) == []


def test_a_sender_that_falls_silent_is_told_so(pool: ConnectionPool, bucket: FolderBucket):
    """A sender that falls silent is told so."""
    with running(pool, bucket, body_stall_s=0.1) as server:
        headers = bearer(server.device())
        with connected(server.base_url) as line:
            line.sendall(head(URL + KEY, headers, len(BODY)) + BODY[:10])
            answer = line.recv(4096)

    assert answer.startswith(b"HTTP/1.1 408")
    assert keys(bucket) == []


def test_a_client_that_leaves_after_its_body_has_uploaded_it(server: Endpoints, bucket: FolderBucket):
    """A client that leaves after its body has uploaded it."""
    token = server.device()
    with connected(server.base_url) as line:
        line.sendall(head(URL + KEY, bearer(token), len(BODY)) + BODY)
        assert line.recv(1)

    assert bucket.get(KEY, LIMITS.object_bytes_max) == BODY


TOKEN_ANSWERS = {
    "none": ("400", "InvalidRequest", "headers must have required property 'authorization'"),
    "garbage": ("403", "AccessDenied", "Invalid Compact JWS"),
    "wrong secret": ("403", "AccessDenied", "signature verification failed"),
    "tampered": ("403", "AccessDenied", "signature verification failed"),
    "alg none": ("403", "AccessDenied", '"alg" (Algorithm) Header Parameter value not allowed'),
    "alg HS384": ("403", "AccessDenied", '"alg" (Algorithm) Header Parameter value not allowed'),
    "expired": ("403", "AccessDenied", '"exp" claim timestamp check failed'),
    "not yet": ("403", "AccessDenied", '"nbf" claim timestamp check failed'),
    "no exp": ("403", "AccessDenied", '"exp" claim must be a number of whole seconds'),
    "exp as text": ("403", "AccessDenied", '"exp" claim must be a number of whole seconds'),
    "no iat": ("403", "AccessDenied", '"iat" claim must be a number of whole seconds'),
    "iat ahead": ("403", "AccessDenied", '"iat" claim lies in the future'),
    "too long": ("403", "AccessDenied", "a device's token is good for at most 30 days"),
}


def test_every_bad_token_is_refused_as_supabase_refuses_it(server: Endpoints, bucket: FolderBucket):
    """Every bad token is refused as Supabase refuses it."""
    matrix = outlaws(server)

    assert TOKEN_ANSWERS.keys() < matrix.keys()
    for name, token in matrix.items():
        response = server.client.post(URL + KEY, content=BODY, headers=bearer(token) if token else {})
        status_code, code, message = TOKEN_ANSWERS.get(name, ("403", "AccessDenied", ROW_REFUSED))
        assert (*meaning(response), response.json()["message"]) == (400, status_code, code, message), name
    assert keys(bucket) == []


def test_a_role_that_does_not_exist_is_answered_as_supabase_does(server: Endpoints):
    """A role that does not exist is answered as Supabase does."""
    response = server.client.post(URL + KEY, content=BODY, headers=bearer(signed(claims_of_device(role="nobody"))))

    assert meaning(response) == (500, "500", "DatabaseError")


@pytest.mark.parametrize("scheme", ["Bearer ", "bearer ", ""])
def test_the_scheme_may_be_written_in_any_way_or_left_out(server: Endpoints, scheme: str):
    """The scheme may be written in any way or left out."""
    response = server.client.post(URL + KEY, content=BODY, headers={"Authorization": scheme + server.device()})

    assert response.status_code == 200


def test_a_service_token_may_upload_for_any_device(server: Endpoints, bucket: FolderBucket):
    """A service token may upload for any device."""
    response = server.client.post(URL + KEY, content=BODY, headers=bearer(server.service()))

    assert response.status_code == 200
    assert keys(bucket) == [KEY]


def test_while_the_database_is_down_nothing_is_stored(server: Endpoints, bucket: FolderBucket):
    """While the database is down nothing is stored."""
    headers = bearer(server.device())
    server.pool.close()
    response = server.client.post(URL + KEY, content=BODY, headers=headers)

    assert meaning(response) == (500, "500", "InternalError")
    assert keys(bucket) == []


def connected(base_url: str) -> socket.socket:
    """A bare connection."""
    address = urlsplit(base_url)
    return socket.create_connection((address.hostname, address.port), DEADLINE_S)


def head(path: str, headers: dict[str, str], length: int) -> bytes:
    """A request's head, its path exactly as given: clients of ours would tidy it."""
    lines = [f"POST {path} HTTP/1.1", "Host: test", f"Content-Length: {length}", "Connection: close"]
    return "\r\n".join([*lines, *(f"{name}: {value}" for name, value in headers.items()), "", ""]).encode()


def raw_post(base_url: str, path: str, headers: dict[str, str], body: bytes) -> tuple[str, str, str]:
    """Post to a path exactly as given; return HTTP status, statusCode, code."""
    with connected(base_url) as line:
        line.sendall(head(path, headers, len(body)) + body)
        answer = b"".join(iter(lambda: line.recv(4096), b""))
    status = answer.split(b" ", 2)[1].decode()
    told = httpx.Response(int(status), content=answer.partition(b"\r\n\r\n")[2]).json()
    return status, told["statusCode"], told["code"]
