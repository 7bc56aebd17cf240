"""The forms of a bucket, one file each, and the one place that chooses between them by URL.

    file:///ABSOLUTE/FOLDER                  folder.py
    s3://BUCKET?endpoint=URL&region=NAME     s3.py        any S3 server; without endpoint, AWS
    supabase+https://HOST/BUCKET             supabase.py  Supabase's own storage protocol

Credentials come from the environment; a URL that holds any is refused. No URL is ever quoted in an error.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from urllib.parse import SplitResult, urlsplit

import structlog

from server.bucket import Bucket, BucketUnavailable
from server.buckets import folder, s3, supabase
from server.errors import Misconfigured

URLS = "file:///FOLDER, s3://BUCKET?endpoint=URL&region=NAME or supabase+https://HOST/BUCKET"

_FORMS: dict[str, Callable[[SplitResult, Mapping[str, str]], AbstractContextManager[Bucket]]] = {
    "file": folder.opened,
    "s3": s3.opened,
    "supabase+https": supabase.opened,
    "supabase+http": supabase.opened,
}

log = structlog.get_logger()


@contextmanager
def open_bucket(url: str, environment: Mapping[str, str]) -> Iterator[Bucket]:
    """Open the bucket at `url` and see that it is there.

    Raises Misconfigured for a URL or environment that can't be right, and BucketRefused for a bucket that is
    not there or refuses our credentials. One that does not answer just now is opened all the same: what needs
    it tries again, and what does not goes on meanwhile.
    """
    try:
        parts = urlsplit(url)
    except ValueError:
        raise Misconfigured(f"the bucket's URL can't be read; it is {URLS}.") from None
    if "@" in parts.netloc:
        raise Misconfigured("the bucket's URL holds credentials: take them out, they belong into the environment.")
    if parts.scheme not in _FORMS or parts.fragment:
        raise Misconfigured(f"a bucket's URL is {URLS}.")
    with _FORMS[parts.scheme](parts, environment) as bucket:
        try:
            bucket.check()
        except BucketUnavailable as problem:
            log.warning("bucket_unavailable", bucket=bucket.name, reason=str(problem))
        yield bucket
