"""Buckets across a network: what passes is tried again, what does not is said at once, and no secret is told."""

import json
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import httpx
import pytest
from bucket_forms import S3_KEYS, SUPABASE_KEY, s3_form, supabase_form
from scripted_server import DROPPED, Answer, Script, scripted_server
from supabase_stand_in import BASE, SERVICE_KEY, StandIn

from server.bucket import Bucket, BucketFault, BucketRefused, BucketUnavailable, NoSuchObject, ObjectExists
from server.buckets import s3, supabase
from server.buckets.remote import HEAD_BYTES, TRIES_MAX, WAIT_S_MAX
from server.buckets.s3 import S3Bucket
from server.buckets.supabase import SupabaseBucket

KEY = "2026-01-20/pi-05/data.jsonl"
ROOM = 1000
PAGE = b"<!DOCTYPE html><html><body>Please log in</body></html>"


@dataclass
class Far:
    """A remote bucket whose server follows a script. `refused` makes an error as this form's servers do."""

    bucket: Bucket
    script: Script
    refused: Callable[[int, str], Answer]
    slept: list[float] = field(default_factory=list)


def s3_refusal(status: int, code: str) -> Answer:
    """As S3 says no; the message quotes what it should not."""
    text = f"<Error><Code>{code}</Code><Message>of {S3_KEYS['AWS_SECRET_ACCESS_KEY']}</Message></Error>"
    return Answer(status, text.encode(), {"Content-Type": "application/xml"})


def supabase_refusal(status: int, code: str) -> Answer:
    """As Supabase says no: HTTP 400, whatever it is."""
    text = {"statusCode": str(status), "error": code, "message": f"of {SERVICE_KEY}", "code": code}
    return Answer(400, json.dumps(text).encode(), {"Content-Type": "application/json"})


@contextmanager
def far_s3(script: Script) -> Iterator[Far]:
    """A bucket on S3."""
    slept: list[float] = []
    with s3.opened(urlsplit(f"s3://scout?endpoint={script.url}"), S3_KEYS, sleep=slept.append) as bucket:
        yield Far(bucket, script, s3_refusal, slept)


@contextmanager
def far_supabase(script: Script) -> Iterator[Far]:
    """A bucket in Supabase."""
    slept: list[float] = []
    with supabase.opened(urlsplit(f"supabase+{script.url}/scout"), SUPABASE_KEY, sleep=slept.append) as bucket:
        yield Far(bucket, script, supabase_refusal, slept)


@pytest.fixture(params=[far_s3, far_supabase])
def far(request: pytest.FixtureRequest) -> Iterator[Far]:
    """Open each remote form in turn over a server that follows a script."""
    with scripted_server() as script, request.param(script) as opened:
        yield opened


def use_of(bucket: Bucket) -> dict[str, Callable[[], object]]:
    """Each thing that is asked of a bucket."""
    return {
        "check": bucket.check,
        "put_new": lambda: bucket.put_new(KEY, b"body"),
        "open": lambda: bucket.get(KEY, ROOM),
        "version_of": lambda: bucket.version_of(KEY),
        "list": lambda: list(bucket.list("")),
    }


USES = ["check", "put_new", "open", "version_of", "list"]


def test_what_passes_is_tried_again(far: Far) -> None:
    """A dropped connection, an answer cut in the middle and a busy server cost a wait, not a failure."""
    whole = Answer(body=b"sales")
    for fault in (DROPPED, Answer(body=b"sal", cut=True), far.refused(503, "SlowDown"), far.refused(429, "SlowDown")):
        far.script.answers[:] = [fault, fault, whole]
        assert far.bucket.get(KEY, ROOM) == b"sales"

    assert len(far.script.requests) == 12
    assert len(far.slept) == 8
    assert all(0 <= wait_s <= WAIT_S_MAX for wait_s in far.slept)


LONG = b"sales" * 1_000_000


@pytest.mark.parametrize(
    "cut",
    [
        Answer(body=LONG, cut=True),
        Answer(body=b"7FFFFFFF\r\n" + LONG, headers={"Transfer-Encoding": "chunked"}, announced=False),
    ],
    ids=["of a given length", "in chunks"],
)
def test_an_object_cut_after_much_of_it_was_handed_on_is_a_fault(far: Far, cut: Answer) -> None:
    """It never looks whole, and nothing is read twice: whoever took the beginning must forget it."""
    far.script.answers[:] = [cut]
    read: list[int] = []
    with pytest.raises(BucketUnavailable), far.bucket.open(KEY) as pieces:
        read.extend(map(len, pieces))

    assert HEAD_BYTES <= sum(read) <= len(LONG)
    assert len(far.script.requests) == 1


def test_an_object_of_which_nobody_says_the_length_is_not_taken(far: Far) -> None:
    """Where the connection's end is the object's, a cut can't be told."""
    far.script.answers[:] = [Answer(body=b"sal", announced=False)]

    with pytest.raises(BucketUnavailable, match="without its length"):
        far.bucket.get(KEY, ROOM)


@pytest.mark.parametrize("use", USES)
def test_what_does_not_pass_in_time_is_an_outage(far: Far, use: str) -> None:
    """After a bounded number of tries it is left to the next run, whatever was asked."""
    for fault in (DROPPED, far.refused(500, "InternalError"), far.refused(544, "DatabaseTimeout")):
        far.script.answers[:] = [fault]
        far.script.requests.clear()
        with pytest.raises(BucketUnavailable):
            use_of(far.bucket)[use]()
        assert len(far.script.requests) == TRIES_MAX


@pytest.mark.parametrize("use", USES)
def test_a_refusal_is_said_at_once(far: Far, use: str) -> None:
    """Trying again would not help; it says where a person must look."""
    far.script.answers[:] = [far.refused(403, "AccessDenied")]

    with pytest.raises(BucketRefused, match=r"403.*look at the keys"):
        use_of(far.bucket)[use]()
    assert len(far.script.requests) == 1
    assert far.slept == []


def test_a_bucket_that_is_not_there_is_not_an_object_that_is_not_there(far: Far) -> None:
    """Else the devices would be asked for copies."""
    uses = use_of(far.bucket)
    if isinstance(far.bucket, S3Bucket):
        # Of a HEAD nobody can tell; hence the check before each run, and no sign of success here either.
        for use in ("put_new", "version_of"):
            uses.pop(use)
        far.script.answers[:] = [Answer(404), Answer(404)]
        with pytest.raises(BucketRefused):
            far.bucket.put_new(KEY, b"body")

    for use in uses.values():
        far.script.answers[:] = [far.refused(404, "NoSuchBucket")]
        with pytest.raises(BucketRefused):
            use()


def test_s3_without_codes_is_understood() -> None:
    """Supabase's S3 puts its codes where the client does not find them."""
    with scripted_server() as script, far_s3(script) as far:
        script.answers[:] = [Answer(404, b"<Error/>", {"Content-Type": "application/xml"})]
        with pytest.raises(NoSuchObject):
            far.bucket.get(KEY, ROOM)
        with pytest.raises(BucketRefused):
            list(far.bucket.list(""))


def test_an_object_without_metadata_hides_no_other() -> None:
    """As Supabase may have one whose upload it never ended."""
    objects = [{"id": "1", "name": "day/a", "metadata": None}, {"id": "2", "name": "day/b", "metadata": {"eTag": None}}]
    with scripted_server() as script, far_supabase(script) as far:
        script.answers[:] = [Answer(200, json.dumps({"hasNext": False, "objects": objects}).encode())]
        listed = list(far.bucket.list("day/"))
        script.answers[:] = [Answer(200, b'{"id":"1","etag":null}')]

        assert [(item.key, item.bytes) for item in listed] == [("day/a", 0), ("day/b", 0)]
        assert listed[0].version == far.bucket.version_of("day/a")


@pytest.mark.parametrize("use", ["put_new", "version_of", "list"])
def test_a_login_page_is_no_answer(far: Far, use: str) -> None:
    """What a proxy puts in the way never looks like an empty bucket, an absent object or one that is stored."""
    far.script.answers[:] = [Answer(200, PAGE, {"Content-Type": "text/html"})]
    with pytest.raises(BucketFault):
        use_of(far.bucket)[use]()

    far.script.answers[:] = [Answer(302, PAGE, {"Location": f"{far.script.url}/login"})]
    with pytest.raises(BucketFault):
        use_of(far.bucket)[use]()
    assert not any("login" in line for line in far.script.requests)


def test_no_error_tells_a_secret(far: Far) -> None:
    """Neither the keys nor the server's own words, not even in a traceback."""
    secrets = [SERVICE_KEY, *S3_KEYS.values(), "Bearer"]
    told = []
    for answer in (DROPPED, Answer(200, PAGE), far.refused(500, "InternalError"), far.refused(403, "AccessDenied")):
        far.script.answers[:] = [answer]
        for use in ("check", "put_new", "list"):
            try:
                use_of(far.bucket)[use]()
            except BucketFault as fault:
                told.append("".join(traceback.format_exception(fault)))

    assert len(told) >= 10
    assert [text for text in told if any(secret in text for secret in secrets)] == []


def test_a_code_that_is_no_word_is_not_repeated(far: Far) -> None:
    """It may be anything."""
    far.script.answers[:] = [far.refused(403, "Denied because of sale 150.50")]

    with pytest.raises(BucketRefused) as refused:
        far.bucket.get(KEY, ROOM)
    assert "403: look" in str(refused.value)


def test_an_object_that_is_there_already_is_said_by_the_server_too(far: Far) -> None:
    """Another writer came between the look and the write."""
    status, code = (412, "PreconditionFailed") if isinstance(far.bucket, S3Bucket) else (409, "KeyAlreadyExists")
    absent = Answer(404) if isinstance(far.bucket, S3Bucket) else far.refused(status, code)
    far.script.answers[:] = [absent, far.refused(status, code)]

    with pytest.raises(ObjectExists):
        far.bucket.put_new(KEY, b"body")


def test_an_object_that_is_not_there_is_said_once(far: Far) -> None:
    """It is an answer, not a fault."""
    far.script.answers[:] = [far.refused(404, "NoSuchKey")]

    with pytest.raises(NoSuchObject):
        far.bucket.get(KEY, ROOM)
    assert far.slept == []


def test_a_listing_that_stands_still_ends(far: Far) -> None:
    """A server that gives the same place to go on again and again keeps nobody for ever."""
    pages = {
        S3Bucket: b"<ListBucketResult><IsTruncated>true</IsTruncated>"
        b"<NextContinuationToken>x</NextContinuationToken></ListBucketResult>",
        SupabaseBucket: b'{"hasNext":true,"nextCursor":"x","objects":[]}',
    }
    far.script.answers[:] = [Answer(200, pages[type(far.bucket)], {"Content-Type": "application/xml"})]

    with pytest.raises(BucketUnavailable, match="goes on, but not where"):
        list(far.bucket.list(""))
    assert len(far.script.requests) == 2


def test_a_listing_of_many_pages_has_each_object_once(moto: object, stand_in: StandIn) -> None:
    """Also when the pages don't come out even."""
    stored = sorted(f"day/{number:02}" for number in range(11))
    with s3_form(moto) as on_s3, supabase_form(stand_in) as in_supabase:
        for key in stored:
            on_s3.bucket.put_new(key, b"")
            in_supabase.bucket.put_new(key, b"")
        headers = {"Authorization": f"Bearer {SERVICE_KEY}", "apikey": SERVICE_KEY}
        with httpx.Client(base_url=stand_in.url + BASE, headers=headers, trust_env=False) as client:
            paged = [
                S3Bucket(moto, on_s3.bucket.name, page_max=3),
                SupabaseBucket(client, in_supabase.bucket.name, page_max=3),
            ]
            assert [[item.key for item in bucket.list("day/")] for bucket in paged] == [stored, stored]
