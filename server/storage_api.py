"""The bucket's upload endpoint: `POST /storage/v1/object/scout-ingest/DAY/DEVICE/FILE`.

May be relied on: 200 means the object is in the bucket under exactly this key, whole, and was not there
before; a body that ends early leaves nothing. Whatever form the bucket has and wherever it lies, it is called
`scout-ingest` here, and an upload is written through to it. Refusals are those of Supabase's storage server, so
that an agent needs no second table: nearly all are HTTP 400 with the meaning in the body's `statusCode` and
`code`.

Stricter than Supabase where that is unsafe: of concurrent writers of one key exactly one wins (where the
bucket is a folder; see server/bucket.py), a body without Content-Length is refused, and so is a token without
`exp` (see server/tokens.py). A multipart form is refused instead of unwrapped. Reading, replacing and removing
objects is refused to every token.
"""

import re
import uuid
from collections.abc import Callable
from datetime import date
from urllib.parse import unquote_to_bytes

import psycopg
import structlog
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from server.body import BodyStalled, BodyTooLarge, read_body
from server.bucket import Bucket, BucketFault, ObjectExists
from server.config import Limits
from server.rate import TOO_FAST, RateLimit
from server.tokens import EDGE_UPLOADER, ROW_REFUSED, SERVICE_ROLE, Identity, TokenRefused, bearer
from server.traffic import REFUSED_AS
from wire.device import device_id_problem

PREFIX = "/storage/v1/object/"
BUCKET = "scout-ingest"
"""What the agents call the bucket, whatever it is called where it lies."""

METHODS = ["DELETE", "GET", "HEAD", "PATCH", "POST", "PUT"]

_DAY = re.compile(r"20\d\d-\d\d-\d\d")
_FILE = re.compile(r"(?=.{1,128}\Z)[A-Za-z0-9][A-Za-z0-9._-]*[.](?:jsonl|json|gz|zst)")
# What Supabase allows in a key at all; the policy below allows far less.
_KEY = re.compile(rb"[A-Za-z0-9_/!.*'() &$@=;:+,?-]+")
_BAD_ESCAPE = re.compile(rb"%(?![0-9A-Fa-f]{2})")
_CONTENT_TYPE = re.compile(r"[\w!#$&^.+-]+/[\w!#$&^.+-]+\s*(;.*)?")

log = structlog.get_logger()


class StorageRefusal(Exception):
    """An answer other than success, as Supabase's storage server gives it."""

    def __init__(
        self, status_code: str, code: str, message: str, *, error: str = "", http: int = 400, wait_s: int = 0
    ) -> None:
        super().__init__(message)
        self.http_status = http
        self.headers = {"Retry-After": str(wait_s)} if wait_s else None
        self.body = {"statusCode": status_code, "error": error or code, "message": message, "code": code}

    def response(self) -> Response:
        """The refusal as it travels."""
        return JSONResponse(self.body, self.http_status, self.headers)


def access_denied(message: str = ROW_REFUSED) -> StorageRefusal:
    """The policy refuses."""
    return StorageRefusal("403", "AccessDenied", message, error="Unauthorized")


def storage_routes(
    authenticate: Callable[[str], Identity],
    bucket: Bucket,
    on_stored: Callable[[str], None],
    limits: Limits,
    rate: RateLimit,
) -> list[Route]:
    """Return the routes. `authenticate` verifies a token; `on_stored` gets each new object's key."""

    async def respond(request: Request) -> Response:
        try:
            return await put_object(request)
        except StorageRefusal as refusal:
            request.scope[REFUSED_AS] = refusal.body["statusCode"]
            return refusal.response()
        except TokenRefused as refused:
            request.scope[REFUSED_AS] = refused.storage_status
            return StorageRefusal(
                refused.storage_status, refused.storage_code, refused.storage_message, error="Unauthorized"
            ).response()
        except BucketFault as fault:
            log.warning("bucket_unavailable", bucket=bucket.name, reason=str(fault))
            return StorageRefusal("500", "InternalError", "Internal Server Error", http=500).response()
        except psycopg.OperationalError:
            # Supabase's answer when its database is down.
            return StorageRefusal("500", "InternalError", "Internal Server Error", http=500).response()

    async def put_object(request: Request) -> Response:
        name, key = _bucket_and_key(request.scope["raw_path"].partition(b"?")[0])
        token = bearer(request.headers.get("authorization"))
        identity = await run_in_threadpool(authenticate, token)
        if name != BUCKET:
            raise StorageRefusal("404", "NoSuchBucket", "Bucket not found", error="Bucket not found")
        _refuse_other_verbs(request)
        _refuse_role(identity)
        _refuse_key(key, identity)
        _refuse_too_fast(rate, key.split("/")[1])
        if await run_in_threadpool(bucket.version_of, key) is not None:
            raise _key_exists()
        body = await _object_body(request, limits)
        try:
            await run_in_threadpool(bucket.put_new, key, body)
        except ObjectExists:
            raise _key_exists() from None
        on_stored(key)
        log.info("object_stored", device_id=key.split("/")[1], bytes=len(body))
        return JSONResponse({"Key": f"{BUCKET}/{key}", "Id": str(uuid.uuid4())})

    return [Route(PREFIX + "{path:path}", respond, methods=METHODS)]


def _bucket_and_key(raw_path: bytes) -> tuple[str, str]:
    """Divide the path as it was sent: decoded once, never normalised."""
    path = raw_path.removeprefix(PREFIX.encode())
    if _BAD_ESCAPE.search(path):
        raise StorageRefusal("400", "FST_ERR_BAD_URL", "the path holds a bad percent escape")
    name, slash, key = unquote_to_bytes(path).partition(b"/")
    if not slash:
        raise StorageRefusal("404", "InvalidRequest", "Route not found", http=404)
    if not _KEY.fullmatch(key):
        raise StorageRefusal("400", "InvalidKey", "Invalid key")
    return name.decode(errors="replace"), key.decode()


def _refuse_other_verbs(request: Request) -> None:
    upsert = request.headers.get("x-upsert") == "true"  # only exactly so, as there
    if request.method != "POST" or upsert:
        raise access_denied("permission denied for table objects")


def _refuse_role(identity: Identity) -> None:
    if identity.role in (EDGE_UPLOADER, SERVICE_ROLE):
        return
    if identity.role in ("anon", "authenticated"):
        raise access_denied()
    raise StorageRefusal("500", "DatabaseError", "database error, code: 22023", http=500)


def _refuse_key(key: str, identity: Identity) -> None:
    """Allow exactly DAY/DEVICE/FILE, the device being the token's own; the service may name any."""
    parts = key.split("/")
    if len(parts) != 3:
        raise access_denied()
    day, device_id, file = parts
    if identity.role == EDGE_UPLOADER and device_id != identity.subject:
        raise access_denied()
    if device_id_problem(device_id) or not _is_day(day) or not _FILE.fullmatch(file):
        raise access_denied()


def _refuse_too_fast(rate: RateLimit, device_id: str) -> None:
    wait_s = rate.wait_s(device_id)
    if wait_s:
        raise StorageRefusal("429", "SlowDown", TOO_FAST, http=429, wait_s=wait_s)


def _is_day(text: str) -> bool:
    if not _DAY.fullmatch(text):
        return False
    try:
        date.fromisoformat(text)
    except ValueError:
        return False
    return True


async def _object_body(request: Request, limits: Limits) -> bytes:
    """Read an object of at least one byte whose length was announced."""
    content_type = request.headers.get("content-type", "application/octet-stream")
    if not _CONTENT_TYPE.fullmatch(content_type) or content_type.startswith("multipart/"):
        raise StorageRefusal("415", "InvalidMimeType", "mime type is not supported", error="invalid_mime_type")
    length = request.headers.get("content-length", "")
    if not length.isdigit() or int(length) == 0:
        # Supabase's policy sees no length for a chunked body, or 0, and refuses the row.
        raise access_denied()
    try:
        return await read_body(request, limits.object_bytes_max, limits.body_stall_s)
    except BodyTooLarge:
        raise StorageRefusal(
            "413",
            "EntityTooLarge",
            "The object exceeded the maximum allowed size",
            error="Payload too large",
        ) from None
    except BodyStalled as stalled:
        raise StorageRefusal("408", "RequestTimeout", str(stalled), http=408) from None


def _key_exists() -> StorageRefusal:
    return StorageRefusal("409", "KeyAlreadyExists", "The resource already exists", error="Duplicate")
