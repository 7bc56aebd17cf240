"""`/readyz`: whether requests should be sent here.

May be relied on: 200 only while the database answers, has this version's tables, views and functions, and the bucket
is there and lets us in. Otherwise 503, and which of them is not so. It is asked often and by anybody: the answer is
found out once in KEPT_S at most.
"""

from collections.abc import Callable

import psycopg
from psycopg_pool import ConnectionPool
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from server.bucket import Bucket, BucketFault
from server.config import Limits
from server.errors import Misconfigured
from server.schema import NewerSchema, plan
from server.standing import Kept

KEPT_S = 2.0
ANSWERS = "answers"
CURRENT = "current"


def ready_routes(pool: ConnectionPool, bucket: Bucket, limits: Limits, monotonic: Callable[[], float]) -> list[Route]:
    """Return the route."""

    def ask() -> dict[str, str]:
        return {**_database(pool, limits), "bucket": _bucket(bucket)}

    kept = Kept(ask, KEPT_S, monotonic)

    async def respond(_: Request) -> Response:
        found = await run_in_threadpool(kept.get)
        if set(found.values()) <= {ANSWERS, CURRENT}:
            return JSONResponse({"status": "ready", **found})
        return JSONResponse({"status": "not ready", **found}, 503, {"Retry-After": str(limits.retry_after_s)})

    return [Route("/readyz", respond, methods=["GET"])]


def _database(pool: ConnectionPool, limits: Limits) -> dict[str, str]:
    try:
        with pool.connection(limits.database_wait_s) as connection:
            waiting = plan(connection).files
    except NewerSchema:
        return {"database": ANSWERS, "schema": "is of a newer version: install that one"}
    except Misconfigured:
        return {
            "database": ANSWERS,
            "schema": "was changed by hand, or is another program's: see 'scout-server migrate'",
        }
    except psycopg.Error:
        return {"database": "does not answer", "schema": "unknown"}
    if waiting:
        return {"database": ANSWERS, "schema": "is of another version: run 'scout-server migrate'"}
    return {"database": ANSWERS, "schema": CURRENT}


def _bucket(bucket: Bucket) -> str:
    try:
        bucket.check()
    except (BucketFault, OSError):
        return "does not answer, or does not let us in: the log says more"
    return ANSWERS
