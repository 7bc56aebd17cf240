"""A bucket in Supabase Storage, over its own protocol: `supabase+https://PROJECT.supabase.co/scout-ingest`.

The key comes from SUPABASE_SERVICE_ROLE_KEY. `?base=/PATH` is for a storage server that does not stand behind
Supabase's gateway, which puts it at /storage/v1.

The storage server answers HTTP 400 for nearly everything and puts the meaning into the body's `statusCode` and
`code`, so the body counts first. It lists a bucket that does not exist as an empty one; hence `check`. Its
write-once is a look before the write: of two writers of one key at the same moment both are told yes, and the
bytes of the one that ends last stay.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, closing, contextmanager
from typing import Any, TypeVar
from urllib.parse import SplitResult, quote

import httpx
import msgspec
import tenacity

from server.bucket import Bucket, BucketRefused, NoSuchObject, ObjectExists, ObjectInfo, check_key, without_odd_names
from server.buckets import remote
from server.errors import Misconfigured

URL_FORM = "supabase+https://HOST/BUCKET"
KEY_VARIABLE = "SUPABASE_SERVICE_ROLE_KEY"

_BASE = "/storage/v1"
_BUCKET = re.compile(r"/[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_BASE_PATH = re.compile(r"(/[A-Za-z0-9._-]+)*/?")

_Answer = TypeVar("_Answer")


class _Refusal(msgspec.Struct, rename="camel"):
    status_code: str | int = ""
    code: str = ""


class _Bucket(msgspec.Struct):
    id: str


class _Stored(msgspec.Struct):
    key: str = msgspec.field(name="Key")


class _Metadata(msgspec.Struct, rename="camel"):
    e_tag: str | None = None
    size: int | None = None


class _Listed(msgspec.Struct):
    id: str
    name: str
    metadata: _Metadata | None = None


class _Page(msgspec.Struct, rename="camel"):
    has_next: bool
    objects: list[_Listed]
    next_cursor: str | None = None


class _Info(msgspec.Struct):
    id: str
    etag: str | None = None


@contextmanager
def opened(
    parts: SplitResult, environment: Mapping[str, str], *, sleep: Callable[[float], None] = tenacity.nap.sleep
) -> Iterator["SupabaseBucket"]:
    """Open the bucket that a URL names, with the key of the environment; raise Misconfigured."""
    base = remote.parameters(parts, {"base"}, URL_FORM).get("base", _BASE)
    if not remote.is_host(parts) or not _BUCKET.fullmatch(parts.path) or not _BASE_PATH.fullmatch(base):
        raise Misconfigured(
            f"the bucket's URL is {URL_FORM}, such as supabase+https://PROJECT.supabase.co/scout-ingest."
        )
    key = remote.secret_of(environment, KEY_VARIABLE, "a bucket in Supabase")
    client = httpx.Client(
        base_url=f"{parts.scheme.removeprefix('supabase+')}://{parts.netloc}{base}",
        # The gateway reads `apikey`, the storage server behind it the bearer. What is stored travels as it is.
        headers={"Authorization": f"Bearer {key}", "apikey": key, "Accept-Encoding": "identity"},
        timeout=httpx.Timeout(remote.STALL_TIMEOUT_S, connect=remote.CONNECT_TIMEOUT_S),
    )
    with client:
        yield SupabaseBucket(client, parts.path.removeprefix("/"), sleep=sleep)


class SupabaseBucket(Bucket):
    """A bucket behind a client that carries the key, and that the caller closes. Threads may share it."""

    def __init__(
        self,
        client: httpx.Client,
        name: str,
        *,
        page_max: int = remote.LISTED_MAX,
        sleep: Callable[[float], None] = tenacity.nap.sleep,
    ) -> None:
        self.name = name
        self._client = client
        self._page_max = page_max
        self._patiently = remote.patience(sleep)

    def check(self) -> None:
        """Raise BucketFault unless the bucket is there and lets us in."""
        _decoded(self._ask("GET", f"/bucket/{self.name}"), _Bucket)

    def put_new(self, key: str, body: bytes) -> None:
        """Store an object for good; raise ObjectExists or InvalidKey.

        Also ObjectExists where the answer to our own first try was lost.
        """
        # A bucket may be set to take only the type that the agent sends.
        content_type = "application/gzip" if key.endswith(".gz") else "application/octet-stream"
        path = self._path("/object", key)
        _decoded(self._ask("POST", path, content=body, headers={"Content-Type": content_type}), _Stored)

    def open(self, key: str) -> AbstractContextManager[Iterator[bytes]]:
        """Give an object's bytes piece by piece; raise NoSuchObject or InvalidKey."""
        # The other read route takes an expired key for no key, and says that the object is not there.
        path = self._path("/object/authenticated", key)
        return remote.opened_patiently(self._patiently, lambda: self._begin(path))

    def version_of(self, key: str) -> str | None:
        """Return an object's version, or None when there is no such object; raise InvalidKey."""
        try:
            # HEAD has no body, and so no difference between "not there" and "not now".
            answer = self._ask("GET", self._path("/object/info/authenticated", key))
        except NoSuchObject:
            return None
        info = _decoded(answer, _Info)
        return _version(info.id, info.etag)

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """Yield the objects whose key begins with `prefix`, a page at a time; pass over odd names."""
        return without_odd_names(self._list(prefix), self.name, prefix)

    def _list(self, prefix: str) -> Iterator[ObjectInfo]:
        asked: dict[str, str | int] = {"prefix": prefix, "limit": self._page_max}
        cursor = None
        while True:
            page = _decoded(self._ask("POST", f"/object/list-v2/{self.name}", json=asked), _Page)
            for item in page.objects:
                metadata = item.metadata or _Metadata()
                yield ObjectInfo(item.name, _version(item.id, metadata.e_tag), metadata.size or 0)
            if not page.has_next:
                return
            asked["cursor"] = cursor = remote.next_page(cursor, page.next_cursor)

    def _path(self, route: str, key: str) -> str:
        check_key(key)
        return f"{route}/{self.name}/{quote(key)}"

    def _ask(self, method: str, path: str, **request: Any) -> httpx.Response:
        """Send a request whose answer is small, and return a success."""

        def once() -> httpx.Response:
            with _silence_named():
                return self._success(self._client.request(method, path, **request))

        return self._patiently(once)

    @contextmanager
    def _begin(self, path: str) -> Iterator[Iterator[bytes]]:
        with _silence_named():
            response = self._client.send(self._client.build_request("GET", path), stream=True)
        with closing(response):
            if response.status_code != 200:
                with _silence_named():
                    response.read()
            remote.refuse_endless(self._success(response).headers)
            yield _pieces(response)

    def _success(self, response: httpx.Response) -> httpx.Response:
        if response.status_code == 200:
            return response
        try:
            refusal = msgspec.json.decode(response.content, type=_Refusal)
            status = int(refusal.status_code or response.status_code)
        except (msgspec.MsgspecError, UnicodeDecodeError, ValueError):
            refusal, status = _Refusal(), response.status_code
        if refusal.code == "NoSuchKey":
            raise NoSuchObject
        if refusal.code == "NoSuchBucket":
            raise BucketRefused(f"there is no bucket {self.name}: make it, or correct the URL.")
        if refusal.code == "KeyAlreadyExists":
            raise ObjectExists
        raise remote.refusal(status, refusal.code)


@contextmanager
def _silence_named() -> Iterator[None]:
    try:
        yield
    except httpx.RequestError as error:
        raise remote.silence(error) from None


def _pieces(response: httpx.Response) -> Iterator[bytes]:
    with _silence_named():
        yield from response.iter_raw()


def _decoded(response: httpx.Response, kind: type[_Answer]) -> _Answer:
    try:
        return msgspec.json.decode(response.content, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        raise remote.stranger("storage server of Supabase's") from None


def _version(object_id: str, etag: str | None) -> str:
    """The id as well, which an object that was gone and is back has anew."""
    return f"{object_id}-{(etag or '').strip(chr(34))}"
