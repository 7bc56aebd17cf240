"""A bucket is opened by its URL and the environment; what can't be right is said, and nothing of it is quoted."""

from pathlib import Path

import pytest
from bucket_forms import S3_KEYS, SUPABASE_KEY, Form
from scripted_server import Answer, scripted_server
from structlog.testing import capture_logs
from supabase_stand_in import StandIn

from server.bucket import BucketRefused, BucketUnavailable
from server.buckets import open_bucket
from server.errors import Misconfigured

KEY = "2026-01-20/pi-05/data.jsonl"
KEYS = S3_KEYS | SUPABASE_KEY


def test_a_folder_is_opened_by_its_absolute_path(tmp_path: Path) -> None:
    """With escapes where needed."""
    folder = tmp_path / "the bucket"
    folder.mkdir()
    with open_bucket(folder.as_uri(), {}) as bucket:
        bucket.put_new(KEY, b"body")

    assert (folder / KEY).read_bytes() == b"body"
    assert bucket.name == "scout-ingest"


def test_a_remote_bucket_has_the_name_of_its_url(form: Form) -> None:
    """The ledger says in which bucket an object lies."""
    assert form.bucket.name == (
        "scout-ingest" if form.url.startswith("file") else form.url.split("?")[0].split("/")[-1]
    )


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("", "file:///FOLDER, s3://BUCKET"),
        ("ftp://bucket", "file:///FOLDER, s3://BUCKET"),
        ("/srv/bucket", "file:///FOLDER"),
        ("https://x.supabase.co/scout-ingest", r"supabase\+https://HOST/BUCKET"),
        ("s3://[bucket", "can't be read"),
        ("file://elsewhere/srv/bucket", "file:///ABSOLUTE/FOLDER"),
        ("file:relative", "file:///ABSOLUTE/FOLDER"),
        ("file:///srv?x=1", "file:///ABSOLUTE/FOLDER"),
        ("file:///no/such/folder", "is not there: make the folder"),
        ("s3://", "3 to 63"),
        ("s3://Bucket_1", "3 to 63"),
        ("s3://bucket/folder", "s3://BUCKET"),
        ("s3://bucket#x", "s3://BUCKET"),
        ("s3://bucket?endpoint=x.test", r"http\(s\)://HOST"),
        ("s3://bucket?endpoint=https://key:hidden@x.test", "without credentials"),
        ("s3://bucket?endpoint=https://x.test:hidden", r"http\(s\)://HOST"),
        ("s3://bucket?secret_key=hidden", "behind the question mark"),
        ("s3://bucket?region=", "behind the question mark"),
        ("s3://bucket?region=a&region=b", "behind the question mark"),
        ("s3://key:hidden@bucket", "take them out"),
        ("supabase+https://x.test", r"supabase\+https://HOST/BUCKET"),
        ("supabase+https://x.test/a/b", r"supabase\+https://HOST/BUCKET"),
        ("supabase+https:///scout", r"supabase\+https://HOST/BUCKET"),
        ("supabase+https://x.test:port/scout", r"supabase\+https://HOST/BUCKET"),
        ("supabase+https://x.test/scout?base=../x", r"supabase\+https://HOST/BUCKET"),
        ("supabase+https://x.test/scout?key=hidden", "behind the question mark"),
        ("supabase+https://user:hidden@x.test/scout", "take them out"),
    ],
)
def test_a_url_that_cannot_be_right_is_refused_with_what_can(url: str, reason: str) -> None:
    """A mistyped bucket must not look like an empty one, and a secret in it is not repeated."""
    with pytest.raises(Misconfigured, match=reason) as refused, open_bucket(url, KEYS):
        pass
    assert "hidden" not in str(refused.value)


@pytest.mark.parametrize(
    ("url", "variable"),
    [
        ("s3://scout", "AWS_ACCESS_KEY_ID"),
        ("s3://scout", "AWS_SECRET_ACCESS_KEY"),
        ("supabase+https://x.test/scout", "SUPABASE_SERVICE_ROLE_KEY"),
    ],
)
def test_credentials_come_from_the_environment_only(url: str, variable: str) -> None:
    """One that is missing, or can't be one, is named and not quoted; no profile of this machine stands in."""
    for value, reason in (("", "set it in the environment"), ("hidden\n", "line break")):
        with pytest.raises(Misconfigured, match=reason) as refused, open_bucket(url, KEYS | {variable: value}):
            pass
        assert variable in str(refused.value)
        assert "hidden" not in str(refused.value)


def test_a_session_token_goes_along_and_must_be_one() -> None:
    """Short-lived keys have one."""
    token = {"AWS_SESSION_TOKEN": "session-token"}
    with scripted_server() as script:
        script.answers[:] = [Answer(200)]
        with open_bucket(f"s3://scout?endpoint={script.url}", KEYS | token):
            pass
    assert script.headers[0]["x-amz-security-token"] == "session-token"

    token = {"AWS_SESSION_TOKEN": "hidden\n"}
    with pytest.raises(Misconfigured, match="AWS_SESSION_TOKEN holds"), open_bucket("s3://scout", KEYS | token):
        pass


def test_a_bucket_that_is_not_there_is_said_at_opening(form: Form) -> None:
    """Supabase lists it as empty, and S3 has nothing against looking for its objects."""
    form.destroy()

    with (
        pytest.raises((BucketRefused, Misconfigured), match=r"is no bucket|is not there"),
        open_bucket(form.url, form.environment),
    ):
        pass


def test_a_key_that_is_refused_is_said_at_opening(stand_in: StandIn) -> None:
    """A wrong key is for a person to change."""
    stand_in.buckets["scout-refused"] = {}
    url = f"supabase+{stand_in.url}/scout-refused"
    with (
        pytest.raises(BucketRefused, match="403 AccessDenied: look at the keys"),
        open_bucket(url, {"SUPABASE_SERVICE_ROLE_KEY": "another"}),
    ):
        pass


def test_a_bucket_that_does_not_answer_is_opened_all_the_same() -> None:
    """The endpoints and the loader's loop outlive it; the log says so."""
    with scripted_server() as script, capture_logs() as logs:
        script.answers[:] = [Answer(503)]
        with (
            open_bucket(f"supabase+{script.url}/scout", SUPABASE_KEY) as bucket,
            pytest.raises(BucketUnavailable),
        ):
            bucket.get(KEY, 1)
    assert [entry["event"] for entry in logs] == ["bucket_unavailable"]


def test_a_storage_server_without_gateway_has_its_own_base() -> None:
    """Else its paths begin as Supabase's gateway has them."""
    with scripted_server() as script:
        script.answers[:] = [Answer(200, b'{"id":"scout"}')]
        for base in ("", "?base=/", "?base=/storage/v2"):
            with open_bucket(f"supabase+{script.url}/scout{base}", SUPABASE_KEY):
                pass

    assert [line.split()[1] for line in script.requests] == [
        "/storage/v1/bucket/scout",
        "/bucket/scout",
        "/storage/v2/bucket/scout",
    ]


def test_a_supabase_key_goes_to_gateway_and_storage_and_nothing_is_compressed_on_the_way() -> None:
    """The gateway reads one header, the storage server the other; what comes must be the object's own bytes."""
    with scripted_server() as script:
        script.answers[:] = [Answer(200, b'{"id":"scout"}')]
        with open_bucket(f"supabase+{script.url}/scout", {"SUPABASE_SERVICE_ROLE_KEY": "service-key"}):
            pass

    sent = script.headers[0]
    assert (sent["authorization"], sent["apikey"]) == ("Bearer service-key", "service-key")
    assert sent["accept-encoding"] == "identity"
