"""A bucket on any S3 server: `s3://BUCKET?endpoint=https://HOST&region=NAME`; without endpoint, on AWS.

The keys come from AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (and AWS_SESSION_TOKEN where one is needed).
They need the rights to list the bucket and to read and write objects.

boto3 rather than a client with checked paths: one object called `day//x` or `day/../x` makes those fail to
list the whole day, and names are for whoever uploads to choose.

S3 promises no write-once. `put_new` looks first and says `If-None-Match: *`, which AWS keeps and others ignore.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, closing, contextmanager
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar
from urllib.parse import SplitResult, urlsplit

import boto3
import tenacity
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from botocore.parsers import ResponseParserError

from server.bucket import (
    PIECE_BYTES,
    Bucket,
    BucketRefused,
    NoSuchObject,
    ObjectExists,
    ObjectInfo,
    check_key,
    without_odd_names,
)
from server.buckets import remote
from server.errors import Misconfigured

if TYPE_CHECKING:
    from botocore.response import StreamingBody
    from types_boto3_s3 import S3Client
    from types_boto3_s3.type_defs import ListObjectsV2RequestTypeDef

URL_FORM = "s3://BUCKET?endpoint=https://HOST&region=NAME"

REGION = "us-east-1"
"""What servers that have no regions take."""

_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")

_LOOKS = ("HeadBucket", "HeadObject", "GetObject")
"""The requests that 404 answers; to any other it says that the bucket is not there."""

_Arguments = ParamSpec("_Arguments")
_Answer = TypeVar("_Answer")


@contextmanager
def opened(
    parts: SplitResult, environment: Mapping[str, str], *, sleep: Callable[[float], None] = tenacity.nap.sleep
) -> Iterator["S3Bucket"]:
    """Open the bucket that a URL names, with the keys of the environment; raise Misconfigured."""
    given = remote.parameters(parts, {"endpoint", "region"}, URL_FORM)
    if not _BUCKET.fullmatch(parts.netloc) or parts.path not in ("", "/"):
        raise Misconfigured(f"the bucket's URL is {URL_FORM}: a bucket's name has 3 to 63 of a-z, 0-9, '.' and '-'.")
    endpoint = given.get("endpoint")
    if endpoint is not None:
        _refuse_endpoint(endpoint)
    with closing(_client(endpoint, given.get("region", REGION), environment)) as client:
        yield S3Bucket(client, parts.netloc, sleep=sleep)


class S3Bucket(Bucket):
    """A bucket behind an S3 client, which the caller closes. Threads may share it."""

    def __init__(
        self,
        client: "S3Client",
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
        try:
            self._ask(self._client.head_bucket, Bucket=self.name)
        except NoSuchObject:
            raise BucketRefused(f"there is no bucket {self.name}: make it, or correct the URL.") from None

    def put_new(self, key: str, body: bytes) -> None:
        """Store an object for good; raise ObjectExists or InvalidKey.

        Also ObjectExists where the answer to our own first try was lost.
        """
        if self.version_of(key) is not None:
            raise ObjectExists
        stored = self._ask(self._client.put_object, Bucket=self.name, Key=key, Body=body, IfNoneMatch="*")
        if "ETag" not in stored:
            raise remote.stranger("S3 server")

    def open(self, key: str) -> AbstractContextManager[Iterator[bytes]]:
        """Give an object's bytes piece by piece; raise NoSuchObject or InvalidKey."""
        check_key(key)
        return remote.opened_patiently(self._patiently, lambda: self._begin(key))

    def version_of(self, key: str) -> str | None:
        """Return an object's version, or None when there is no such object; raise InvalidKey."""
        check_key(key)
        try:
            head = self._ask(self._client.head_object, Bucket=self.name, Key=key)
        except NoSuchObject:
            return None
        return _version(head)

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """Yield the objects whose key begins with `prefix`, a page at a time; pass over odd names."""
        return without_odd_names(self._list(prefix), self.name, prefix)

    def _list(self, prefix: str) -> Iterator[ObjectInfo]:
        where: ListObjectsV2RequestTypeDef = {"Bucket": self.name, "Prefix": prefix, "MaxKeys": self._page_max}
        while True:
            page = self._ask(self._client.list_objects_v2, **where)
            for item in page.get("Contents", []):
                yield ObjectInfo(item["Key"], _version(item), item["Size"])
            if "IsTruncated" not in page:
                raise remote.stranger("S3 server")
            if not page["IsTruncated"]:
                return
            where["ContinuationToken"] = remote.next_page(
                where.get("ContinuationToken"), page.get("NextContinuationToken")
            )

    @contextmanager
    def _begin(self, key: str) -> Iterator[Iterator[bytes]]:
        with _errors_sorted():
            answer = self._client.get_object(Bucket=self.name, Key=key)
        with closing(answer["Body"]) as body:
            remote.refuse_endless(answer["ResponseMetadata"]["HTTPHeaders"])
            yield _pieces(body)

    def _ask(
        self, operation: Callable[_Arguments, _Answer], *args: _Arguments.args, **kwargs: _Arguments.kwargs
    ) -> _Answer:
        def once() -> _Answer:
            with _errors_sorted():
                return operation(*args, **kwargs)

        return self._patiently(once)


def _pieces(body: "StreamingBody") -> Iterator[bytes]:
    with _errors_sorted():
        yield from body.iter_chunks(PIECE_BYTES)  # to its end, which is where a cut is noticed


def _client(endpoint: str | None, region: str, environment: Mapping[str, str]) -> "S3Client":
    """Make a client that takes nothing from this machine but the keys: no profile, no other endpoint."""

    def secret(variable: str) -> str:
        return remote.secret_of(environment, variable, "a bucket on S3")

    config = Config(
        connect_timeout=remote.CONNECT_TIMEOUT_S,
        read_timeout=remote.STALL_TIMEOUT_S,
        max_pool_connections=40,  # as many threads answer requests
        retries={"total_max_attempts": 1},  # ours cover the body as well
        ignore_configured_endpoint_urls=True,  # type: ignore[call-arg]  # newer than the stubs
        # Only AWS knows a bucket by its host name, and trailing checksums.
        s3={"addressing_style": "path" if endpoint else "auto"},
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
    )
    try:
        return boto3.session.Session().client(
            "s3",
            endpoint_url=endpoint,
            region_name=region,
            aws_access_key_id=secret("AWS_ACCESS_KEY_ID"),
            aws_secret_access_key=secret("AWS_SECRET_ACCESS_KEY"),
            aws_session_token=secret("AWS_SESSION_TOKEN") if environment.get("AWS_SESSION_TOKEN") else None,
            config=config,
        )
    except (BotoCoreError, ValueError) as error:
        raise Misconfigured(
            f"the S3 client does not take endpoint, region or AWS settings of this machine ({type(error).__name__})."
        ) from None


@contextmanager
def _errors_sorted() -> Iterator[None]:
    """Translate what boto3 raises, which may quote URLs and what the server said."""
    try:
        yield
    except ClientError as error:
        raise _meaning(error) from None
    except (BotoCoreError, ResponseParserError, OSError) as error:
        raise remote.silence(error) from None
    except RecursionError:
        # How botocore follows a redirect of which every answer is another one.
        raise remote.refusal(302, "") from None


def _meaning(error: ClientError) -> Exception:
    status = error.response["ResponseMetadata"]["HTTPStatusCode"]
    code = str(error.response["Error"].get("Code", ""))  # empty from Supabase's S3; HEAD has none either
    if status == 404 and code != "NoSuchBucket" and error.operation_name in _LOOKS:
        return NoSuchObject()
    if status == 412:
        return ObjectExists()
    return remote.refusal(status, code)


def _version(said: Mapping[str, Any]) -> str:
    """The time as well, in the whole seconds that both answers have: what was gone and is back is loaded again."""
    try:
        etag, modified = said["ETag"], said["LastModified"]
    except KeyError:
        raise remote.stranger("S3 server") from None
    return f"{etag.strip(chr(34))}-{int(modified.timestamp()):x}"


def _refuse_endpoint(endpoint: str) -> None:
    try:
        parts = urlsplit(endpoint)
    except ValueError:
        parts = urlsplit("")
    if parts.scheme not in ("http", "https") or not remote.is_host(parts) or parts.query or parts.fragment:
        raise Misconfigured(f"the bucket's URL is {URL_FORM}; its endpoint is http(s)://HOST, without credentials.")
