"""The stand-in for Supabase Storage, held against a table of what the real server was seen to answer."""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from supabase_stand_in import BASE, SERVICE_KEY, StandIn

GOOD = {"apikey": SERVICE_KEY, "Authorization": f"Bearer {SERVICE_KEY}"}
BAD = {"apikey": SERVICE_KEY, "Authorization": "Bearer another"}
NONE = {"apikey": SERVICE_KEY}
KEY = "2026-01-20/pi-05/a.jsonl"

# request, headers, HTTP status, statusCode and code of the body (or None where it has none)
ANSWERS: list[tuple[str, dict[str, str], int, tuple[str, str] | None]] = [
    ("GET bucket/b", GOOD, 200, None),
    ("GET bucket/other", GOOD, 400, ("404", "NoSuchBucket")),
    ("GET bucket/b", BAD, 400, ("403", "AccessDenied")),
    ("GET bucket/b", NONE, 400, ("400", "InvalidRequest")),
    ("GET bucket/b", {}, 401, None),
    (f"POST object/b/{KEY}", GOOD, 400, ("409", "KeyAlreadyExists")),
    ("POST object/b/2026-01-20/pi-05/new.jsonl", GOOD, 200, None),
    ("POST object/other/new.jsonl", GOOD, 400, ("404", "NoSuchBucket")),
    ("POST object/b/pi%C3%B1ata", GOOD, 400, ("400", "InvalidKey")),
    ("POST object/b/%252e", GOOD, 400, ("400", "InvalidKey")),
    ("POST object/b/day/%2e%2e/x", GOOD, 200, None),  # literally, where S3 is behind it
    (f"GET object/authenticated/b/{KEY}", GOOD, 200, None),
    ("GET object/authenticated/b/none", GOOD, 400, ("404", "NoSuchKey")),
    ("GET object/authenticated/other/none", GOOD, 400, ("404", "NoSuchBucket")),
    (f"GET object/authenticated/b/{KEY}", BAD, 400, ("403", "AccessDenied")),
    (f"GET object/b/{KEY}", BAD, 400, ("404", "NoSuchBucket")),  # a bad token is none, here
    (f"HEAD object/authenticated/b/{KEY}", GOOD, 200, None),
    ("HEAD object/authenticated/b/none", GOOD, 400, None),
    (f"GET object/info/authenticated/b/{KEY}", GOOD, 200, None),
    ("GET object/info/authenticated/b/none", GOOD, 400, ("404", "NoSuchKey")),
    ("GET object/info/authenticated/other/none", GOOD, 400, ("404", "NoSuchBucket")),
    (f"GET object/info/authenticated/b/{KEY}", BAD, 400, ("403", "AccessDenied")),
    ("GET nowhere", GOOD, 404, ("404", "InvalidRequest")),
]


@pytest.fixture
def client(stand_in: StandIn) -> Iterator[httpx.Client]:
    """Make the bucket `b` with three objects, and a client that carries nothing of its own."""
    stand_in.buckets["b"] = {}
    for key in (KEY, "2026-01-20/pi-05/b.jsonl", "2026-01-20/PI-05/c.jsonl"):
        stand_in.put("b", key, key.encode())
    with httpx.Client(base_url=stand_in.url + BASE, trust_env=False) as client:
        yield client


@pytest.mark.parametrize(("request_line", "headers", "status", "meaning"), ANSWERS)
def test_it_answers_as_the_real_one_does(
    client: httpx.Client, request_line: str, headers: dict[str, str], status: int, meaning: tuple[str, str] | None
) -> None:
    """HTTP 400 for nearly everything, the meaning in the body; HEAD has none."""
    method, path = request_line.split()
    response = client.request(method, path, headers=headers, content=b"{}" if method == "POST" else None)

    assert response.status_code == status
    if meaning:
        assert (response.json()["statusCode"], response.json()["code"]) == meaning


def listed(client: httpx.Client, bucket: str = "b", **asked: Any) -> dict[str, Any]:
    """Ask for a page."""
    response = client.post(f"object/list-v2/{bucket}", headers=GOOD, json=asked)
    assert response.status_code == 200
    return response.json()


def names(page: dict[str, Any]) -> list[str]:
    """The names of a page."""
    return [item["name"] for item in page["objects"]]


def test_it_lists_as_the_real_one_does(client: httpx.Client) -> None:
    """Recursively, in byte order, by partial prefix, case-sensitively; a missing bucket looks empty."""
    assert names(listed(client)) == ["2026-01-20/PI-05/c.jsonl", KEY, "2026-01-20/pi-05/b.jsonl"]
    assert names(listed(client, prefix="2026-01-20/pi-05/a")) == [KEY]
    assert names(listed(client, prefix="2026-01-20/Pi")) == []
    assert listed(client, "other") == {"hasNext": False, "folders": [], "objects": []}


def test_it_pages_as_the_real_one_does(client: httpx.Client) -> None:
    """By hasNext and nextCursor; a cursor of its own making only."""
    first = listed(client, limit=2)
    second = listed(client, limit=2, cursor=first["nextCursor"])

    assert (first["hasNext"], second["hasNext"], "nextCursor" in second) == (True, False, False)
    assert len(names(first)) == 2
    assert names(second) == ["2026-01-20/pi-05/b.jsonl"]
    bad = client.post("object/list-v2/b", headers=GOOD, json={"cursor": "ü"})
    assert (bad.status_code, bad.json()["statusCode"]) == (400, "400")


def test_an_object_keeps_its_id_and_changes_its_etag(client: httpx.Client, stand_in: StandIn) -> None:
    """List, info and read say the same of it."""
    before = client.get(f"object/info/authenticated/b/{KEY}", headers=GOOD).json()
    stand_in.put("b", KEY, b"other")
    after = client.get(f"object/info/authenticated/b/{KEY}", headers=GOOD).json()
    read = client.get(f"object/authenticated/b/{KEY}", headers=GOOD)
    (in_list,) = (item for item in listed(client)["objects"] if item["name"] == KEY)

    assert before["id"] == after["id"] == in_list["id"]
    assert before["etag"] != after["etag"] == in_list["metadata"]["eTag"] == read.headers["etag"]
    assert (after["size"], in_list["metadata"]["size"], read.content) == (5, 5, b"other")
