"""A stand-in for Supabase Storage behind its gateway: what a loader asks of it, answered as the real one does.

It is itself checked against a table of what the real one was seen to answer (test_supabase_stand_in.py).
It keeps objects in memory, under any name at all: the S3 behind the real one does so too.
"""

import base64
import hashlib
import json
import re
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote_to_bytes

import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

SERVICE_KEY = "service-key-of-the-stand-in"
BASE = "/storage/v1"

_NAME = re.compile(r"[A-Za-z0-9_/!.*'() &$@=;:+,?-]+")


@dataclass(frozen=True)
class Stored:
    """An object as the storage server knows it."""

    id: str
    body: bytes

    @property
    def etag(self) -> str:
        """As its file backend gives it."""
        return f'"{hashlib.md5(self.body, usedforsecurity=False).hexdigest()}"'


@dataclass
class StandIn:
    """The buckets, by name, each with its objects; `url` is where it answers."""

    url: str = ""
    buckets: dict[str, dict[str, Stored]] = field(default_factory=dict)

    def put(self, bucket: str, key: str, body: bytes) -> Stored:
        """Store an object; its id stays when it is overwritten."""
        before = self.buckets[bucket].get(key)
        stored = Stored(before.id if before else str(uuid.uuid4()), body)
        self.buckets[bucket][key] = stored
        return stored


def problem(status: str, code: str, message: str, http: int = 400) -> Response:
    """HTTP 400 for nearly everything; the meaning is in the body."""
    return JSONResponse({"statusCode": status, "error": code, "message": message, "code": code}, http)


NO_BUCKET = ("404", "NoSuchBucket", "Bucket not found")
NO_KEY = ("404", "NoSuchKey", "Object not found")


@contextmanager
def running_stand_in() -> Iterator[StandIn]:
    """Answer on a real port until the end."""
    stand_in = StandIn()
    server = uvicorn.Server(
        uvicorn.Config(_application(stand_in), port=0, log_config=None, access_log=False, lifespan="off", ws="none")
    )
    listener = server.config.bind_socket()
    stand_in.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        yield stand_in
    finally:
        server.should_exit = True
        thread.join()
        listener.close()


def _application(stand_in: StandIn) -> Starlette:
    async def respond(request: Request) -> Response:
        body = await request.body()
        return await run_in_threadpool(_answer, stand_in, request, body)

    return Starlette(routes=[Route("/{path:path}", respond, methods=["GET", "HEAD", "POST", "PUT", "DELETE"])])


def _answer(stand_in: StandIn, request: Request, body: bytes) -> Response:
    if "apikey" not in request.headers:
        return JSONResponse({"message": "No API key found in request"}, 401)
    path = unquote_to_bytes(request.scope["raw_path"].partition(b"?")[0]).decode()
    _, _, route = path.partition(f"{BASE}/")
    token = request.headers.get("authorization", "")
    if not token:
        return problem("400", "InvalidRequest", "headers must have required property 'authorization'")
    known = token == f"Bearer {SERVICE_KEY}"
    for beginning, method, answer in _ROUTES:
        if route.startswith(beginning) and request.method == method:
            rest = route.removeprefix(beginning)
            if not known and (method, beginning) == ("GET", "object/"):
                return problem(*NO_BUCKET)  # this route takes a bad token for none
            if not known:
                return problem("403", "AccessDenied", "signature verification failed")
            return answer(stand_in, rest, body)
    return problem("404", "InvalidRequest", f"Route {request.method}:/{route} not found", http=404)


def _find(stand_in: StandIn, path: str) -> Stored | Response:
    bucket, _, key = path.partition("/")
    if bucket not in stand_in.buckets:
        return problem(*NO_BUCKET)
    return stand_in.buckets[bucket].get(key) or problem(*NO_KEY)


def _put_object(stand_in: StandIn, path: str, body: bytes) -> Response:
    bucket, _, key = path.partition("/")
    if bucket not in stand_in.buckets:
        return problem(*NO_BUCKET)
    if not _NAME.fullmatch(key):
        return problem("400", "InvalidKey", f"Invalid key: {key}")
    if key in stand_in.buckets[bucket]:
        return problem("409", "KeyAlreadyExists", "The resource already exists")
    return JSONResponse({"Key": f"{bucket}/{key}", "Id": stand_in.put(bucket, key, body).id})


def _get_object(stand_in: StandIn, path: str, _: bytes) -> Response:
    found = _find(stand_in, path)
    if isinstance(found, Response):
        return found
    return Response(found.body, media_type="application/octet-stream", headers={"etag": found.etag})


def _head_object(stand_in: StandIn, path: str, _: bytes) -> Response:
    found = _find(stand_in, path)
    if isinstance(found, Response):
        return Response(status_code=400)  # whatever the reason, and no body
    return Response(headers={"etag": found.etag, "content-length": str(len(found.body))})


def _get_info(stand_in: StandIn, path: str, _: bytes) -> Response:
    found = _find(stand_in, path)
    if isinstance(found, Response):
        return found
    key = path.partition("/")[2]
    return JSONResponse({"id": found.id, "name": key, "size": len(found.body), "etag": found.etag, "metadata": None})


def _get_bucket(stand_in: StandIn, name: str, _: bytes) -> Response:
    if name not in stand_in.buckets:
        return problem(*NO_BUCKET)
    return JSONResponse({"id": name, "name": name, "public": False})


def _list_v2(stand_in: StandIn, bucket: str, body: bytes) -> Response:
    """Recursive, full names, byte order; a bucket that is not there looks empty."""
    asked: dict[str, Any] = json.loads(body)
    try:
        after = base64.b64decode(asked.get("cursor", ""), validate=True).decode()
    except ValueError:
        return problem("400", "InvalidRequest", "bad cursor")
    limit = min(asked.get("limit", 1000), 1000)
    objects = stand_in.buckets.get(bucket, {})
    names = sorted(name for name in list(objects) if name.startswith(asked.get("prefix", "")) and name > after)
    page = {
        "hasNext": len(names) > limit,
        "folders": [],
        "objects": [_listed(name, objects[name]) for name in names[:limit] if name in objects],
    }
    if len(names) > limit:
        page["nextCursor"] = base64.b64encode(names[limit - 1].encode()).decode()
    return JSONResponse(page)


def _listed(name: str, stored: Stored) -> dict[str, Any]:
    metadata = {"eTag": stored.etag, "size": len(stored.body), "mimetype": "application/octet-stream"}
    return {"id": stored.id, "name": name, "metadata": metadata, "created_at": "2026-01-20T00:00:00Z"}


_ROUTES = (
    ("bucket/", "GET", _get_bucket),
    ("object/list-v2/", "POST", _list_v2),
    ("object/info/authenticated/", "GET", _get_info),
    ("object/authenticated/", "GET", _get_object),
    ("object/authenticated/", "HEAD", _head_object),
    ("object/", "GET", _get_object),
    ("object/", "POST", _put_object),
)
