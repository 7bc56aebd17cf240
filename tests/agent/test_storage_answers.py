"""Every answer that a storage server was seen to give to the POST of an object, and what the agent makes of it.

HTTP says 400 to nearly everything there; the body's `statusCode` and `code` say what is meant.
"""

from typing import Any

import httpx
import pytest
import respx
from agent_kit import a_token, sale

from agent.errors import BatchRefused, CredentialsRefused, DeliveryFault, OperatorNeeded, Wait
from agent.upload import Connection, Parcel, by_bucket
from wire.batch import content_hash

KEY = "2027-03-01/pi-05/00000000000000aa-000000000001-000000000001-00000000000000bb.jsonl.gz"
BUCKET_URL = "https://sales.example.com/storage/v1/object/scout-ingest"
PARCEL = Parcel(KEY, sale(1) + b"\n", content_hash(sale(1) + b"\n"), 1)
TOKEN = a_token()

ACKNOWLEDGED = None
DENIED = "AccessDenied"
ROW_LEVEL = "new row violates row-level security policy"


def row(name: str, http: int, *fields: Any) -> Any:
    """One answer under a readable name: HTTP status, statusCode, code and message of the body, what it means."""
    inner, code, message, means = fields
    body = {"statusCode": inner, "error": "x", "message": message, "code": code}
    return pytest.param(http, {key: value for key, value in body.items() if value is not None}, means, id=name)


ANSWERS = [
    # What errors look like
    row("duplicate-key", 400, "409", "KeyAlreadyExists", "The resource already exists", ACKNOWLEDGED),
    row("row-level-security", 400, "403", DENIED, ROW_LEVEL, BatchRefused),
    row("missing-privilege", 400, "403", DENIED, "permission denied for table objects", CredentialsRefused),
    row("schema-privilege", 400, "403", DENIED, "permission denied for schema storage", CredentialsRefused),
    row("role-not-granted", 400, "403", DENIED, 'permission denied to set role "edge_uploader"', CredentialsRefused),
    row("token-expired", 400, "403", DENIED, '"exp" claim timestamp check failed', CredentialsRefused),
    row("bad-signature", 400, "403", DENIED, "signature verification failed", CredentialsRefused),
    row(
        "no-authorization",
        400,
        "400",
        "InvalidRequest",
        "headers must have required property 'authorization'",
        CredentialsRefused,
    ),
    row("no-such-bucket", 400, "404", "NoSuchBucket", "Bucket not found", OperatorNeeded),
    row("no-such-key", 400, "404", "NoSuchKey", "Object not found", OperatorNeeded),
    row("too-large", 400, "413", "EntityTooLarge", "The object exceeded the maximum allowed size", BatchRefused),
    row("mime-refused", 400, "415", "InvalidMimeType", "mime type application/gzip is not supported", OperatorNeeded),
    row("database-read-only", 400, "503", "DatabaseReadOnly", "The database is in read-only mode.", Wait),
    row("lock-timeout", 400, "503", "LockTimeout", "acquiring lock timeout", Wait),
    row("schema-mismatch", 400, "503", "DatabaseSchemaMismatch", "schema mismatch", Wait),
    row("resource-locked", 400, "423", "ResourceLocked", "The resource is locked", Wait),
    row("role-does-not-exist", 500, "500", "DatabaseError", "database error, code: 22023", Wait),
    row("database-down", 500, "500", "InternalError", "Internal Server Error", Wait),
    row("database-timeout", 544, "544", "DatabaseTimeout", "The connection to the database timed out", Wait),
    row("too-many-connections", 429, "429", "SlowDown", "too many connections", Wait),
    row("unknown-route", 404, "404", "InvalidRequest", "Route POST:/object not found", OperatorNeeded),
    row("unknown-route-elsewhere", 404, 404, "InvalidRequest", "Route POST:/objects not found", OperatorNeeded),
    row("malformed-http", 400, 400, None, "Client Error", Wait),
    # Upload and conflict
    row("overwrite-refused", 400, "403", DENIED, "permission denied for table objects", CredentialsRefused),
    row("upload-alias", 400, "404", "NoSuchBucket", "Bucket not found", OperatorNeeded),
    # Paths
    row("another-devices-folder", 400, "403", DENIED, ROW_LEVEL, BatchRefused),
    row("no-object-name", 400, "400", "InvalidKey", "Invalid key: scout-ingest/", BatchRefused),
    row("dot-segment", 400, "400", "InvalidKey", "Invalid key: contains dot path segment", BatchRefused),
    row("bad-escape-in-address", 400, "400", "FST_ERR_BAD_URL", "'/object/%ZZ' is not a valid url", OperatorNeeded),
    row("raw-bytes-in-address", 400, 400, None, "Client Error", Wait),
    row("name-too-long-for-disk", 500, "500", "InternalError", "Internal Server Error", Wait),
    # Tokens
    row("not-yet-valid", 400, "403", DENIED, '"nbf" claim timestamp check failed', CredentialsRefused),
    row("exp-as-text", 400, "403", DENIED, '"exp" claim must be a number', CredentialsRefused),
    row("tampered", 400, "403", DENIED, "signature verification failed", CredentialsRefused),
    row(
        "other-algorithm",
        400,
        "403",
        DENIED,
        '"alg" (Algorithm) Header Parameter value not allowed',
        CredentialsRefused,
    ),
    row("garbage-token", 400, "403", DENIED, "JWS Protected Header is invalid", CredentialsRefused),
    row("no-token-at-all", 400, "403", DENIED, "Invalid Compact JWS", CredentialsRefused),
    row("unknown-role", 500, "500", "DatabaseError", "database error, code: 22023", Wait),
    row("role-missing-or-anon", 400, "403", DENIED, ROW_LEVEL, BatchRefused),
    row("role-postgres", 400, "403", DENIED, 'permission denied to set role "postgres"', CredentialsRefused),
    row("device-id-missing", 400, "403", DENIED, ROW_LEVEL, BatchRefused),
    # Bodies
    row("one-byte-over-the-limit", 400, "413", "EntityTooLarge", "The object exceeded the maximum", BatchRefused),
    row("mime-list-without-ours", 400, "415", "InvalidMimeType", "mime type is not supported", OperatorNeeded),
    row("content-type-garbled", 400, "415", "InvalidMimeType", "Invalid Content-Type header", OperatorNeeded),
    row("cut-half-way", 400, 400, None, "Client Error", Wait),
    row("surplus-bytes", 400, 400, None, "Client Error", Wait),
    row("row-appeared-before-the-retry", 400, "409", "KeyAlreadyExists", "The resource already exists", ACKNOWLEDGED),
    # Not seen, but must not be believed
    row("success-inside-an-error", 400, "200", "Strange", "", OperatorNeeded),
    row("digits-of-another-kind", 400, "²²²", "Strange", "", BatchRefused),
    row("created", 201, None, None, "", OperatorNeeded),
]


@pytest.mark.parametrize(("http", "body", "means"), ANSWERS)
@respx.mock
def test_each_answer_of_the_storage_server_is_sorted_by_what_to_do(
    http: int, body: dict[str, object], means: type[DeliveryFault] | None
) -> None:
    """One row, one class; what is acknowledged raises nothing."""
    respx.post(f"{BUCKET_URL}/{KEY}").respond(http, json=body)
    met: DeliveryFault | None = None
    with httpx.Client() as client:
        try:
            by_bucket(Connection(client, BUCKET_URL, "", "", "", 6, token=lambda: TOKEN), PARCEL)
        except DeliveryFault as fault:
            met = fault

    assert (type(met) if met else ACKNOWLEDGED) is means
    assert TOKEN not in str(met)
