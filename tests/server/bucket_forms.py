"""Every form of bucket, each over what it stands on, for tests that all of them must pass."""

import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config
from supabase_stand_in import SERVICE_KEY, StandIn

from server.bucket import Bucket
from server.buckets import open_bucket

S3_KEYS = {"AWS_ACCESS_KEY_ID": "key-id-of-the-tests", "AWS_SECRET_ACCESS_KEY": "secret-of-the-tests"}
SUPABASE_KEY = {"SUPABASE_SERVICE_ROLE_KEY": SERVICE_KEY}

MOTO = """
import sys
from moto.server import ThreadedMotoServer

server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
server.start()
print("http://%s:%d" % server.get_host_and_port(), flush=True)
sys.stdin.read()
"""

FORMS = ["folder", "moto", "supabase", pytest.param("ceph", marks=pytest.mark.s3)]
"""Ceph is heavy: it is a target of its own."""

_numbers = count(1)


@dataclass(frozen=True)
class Form:
    """A bucket of some form, and what somebody else could do to it behind its back."""

    url: str
    environment: dict[str, str]
    bucket: Bucket
    plant: Callable[[str, bytes], object]  # whatever the name, and over what is there
    remove: Callable[[str], object]
    destroy: Callable[[], object]
    odd_names: tuple[str, ...]  # that this form can hold, and no key can have


@contextmanager
def folder_form(folder: Path) -> Iterator[Form]:
    """A folder."""
    folder.mkdir()

    def plant(key: str, body: bytes) -> None:
        # As another object, which a new file with a new time is.
        path = folder / key
        path.parent.mkdir(parents=True, exist_ok=True)
        aside = folder.parent / "planted"
        aside.write_bytes(body)
        aside.rename(path)

    odd = ("day/line\nbreak", "day/%2e%2e", "day/piñata", "day/~x", "day/#/x")
    with open_bucket(folder.as_uri(), {}) as bucket:
        yield Form(
            folder.as_uri(),
            {},
            bucket,
            plant,
            lambda key: (folder / key).unlink(),
            lambda: shutil.rmtree(folder),
            odd,
        )


@contextmanager
def moto_server() -> Iterator[str]:
    """An S3 server in memory, as a program of its own, which ends with its standard input."""
    program = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", MOTO],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    with program:
        assert program.stdout
        url = program.stdout.readline().strip()
        assert url, "moto did not start"
        yield url


@contextmanager
def s3_form(client: Any, keys: dict[str, str] = S3_KEYS) -> Iterator[Form]:
    """A new bucket on an S3 server, of which `client` is somebody else's client."""
    name = f"scout-{next(_numbers)}"
    client.create_bucket(Bucket=name)
    url = f"s3://{name}?endpoint={client.meta.endpoint_url}"

    def destroy() -> None:
        for page in client.get_paginator("list_objects_v2").paginate(Bucket=name):
            for item in page.get("Contents", []):
                client.delete_object(Bucket=name, Key=item["Key"])
        client.delete_bucket(Bucket=name)

    odd = ("day//x", "day/../x", "day/./x", "day/\x01", "day/a#b&<c>", "day/piñata", "day/~x", "../x", "/day")
    with open_bucket(url, keys) as bucket:
        yield Form(
            url,
            keys,
            bucket,
            lambda key, body: client.put_object(Bucket=name, Key=key, Body=body),
            lambda key: client.delete_object(Bucket=name, Key=key),
            destroy,
            odd,
        )


@contextmanager
def s3_client(endpoint: str, keys: dict[str, str] = S3_KEYS) -> Iterator[Any]:
    """A client that asks nobody before it acts."""
    client = boto3.session.Session().client(
        "s3",
        endpoint_url=endpoint,
        region_name="us-east-1",
        aws_access_key_id=keys["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=keys["AWS_SECRET_ACCESS_KEY"],
        config=Config(s3={"addressing_style": "path"}, request_checksum_calculation="when_required"),
    )
    with closing(client):
        yield client


@contextmanager
def supabase_form(stand_in: StandIn) -> Iterator[Form]:
    """A new bucket in the stand-in for Supabase."""
    name = f"scout-{next(_numbers)}"
    objects = stand_in.buckets[name] = {}
    url = f"supabase+{stand_in.url}/{name}"
    with open_bucket(url, SUPABASE_KEY) as bucket:
        yield Form(
            url,
            SUPABASE_KEY,
            bucket,
            lambda key, body: stand_in.put(name, key, body),
            objects.pop,
            lambda: stand_in.buckets.pop(name),
            ("day//x", "day/../x", "day/./x", "day/\x01", "day/%2e", "day/piñata", "day/~x", "../x", "/day"),
        )
