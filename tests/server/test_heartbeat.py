"""The call home: over HTTP as PostgREST serves it, and the function itself."""

import gzip
import json
from typing import Any

import psycopg
import pytest
from endpoints import EPOCH, NOW, Endpoints, batch, bearer, claims_of_device, outlaws, running
from psycopg.types.json import Jsonb
from psycopg_pool import ConnectionPool

from server import tokens
from server.buckets.folder import FolderBucket
from wire.heartbeat import AWAITED_MAX, EpochState, Reply, Report

URL = "/rest/v1/rpc/heartbeat"
OTHER_EPOCH = "fedcba9876543210"


@pytest.fixture
def server(pool: ConnectionPool, bucket: FolderBucket):
    """Run the endpoints."""
    with running(pool, bucket) as endpoints:
        yield endpoints


@pytest.fixture
def device(connection: psycopg.Connection) -> psycopg.Connection:
    """A database that knows pi-05."""
    tokens.add_device(connection, "pi-05")
    return connection


def report(awaits: tuple[str, ...] = (), epochs: tuple[EpochState, ...] = (), nonce: str = "n-1") -> Report:
    """A report as an agent writes it."""
    return Report(
        nonce=nonce,
        version="0.1.0",
        sent_at="2026-01-20T08:30:00.000Z",
        clock="synced",
        boot="boot-1",
        mono_ms=1,
        epochs=epochs,
        awaits=awaits,
        waiting_rows=7,
        accepted_rows=0,
        set_aside_rows=0,
        spool_bytes=1,
        disk_free_bytes=1,
    )


def as_json(given: Report, **changed: Any) -> dict[str, Any]:
    """A report as the function receives it, with some fields changed."""
    return json.loads(given.to_json()) | changed


def call(connection: psycopg.Connection, body: Any, **claims: Any) -> dict[str, Any]:
    """Call as PostgREST does: as the role, with the claims, in one transaction."""
    with connection.transaction():
        given = json.dumps(claims_of_device() | claims)
        connection.execute("select set_config('request.jwt.claims', %s, true)", [given])
        connection.execute("set local role edge_uploader")
        row = connection.execute("select public.heartbeat(%s)", [Jsonb(body)]).fetchone()
    assert row
    return row[0]


def test_a_report_is_answered_with_a_reply_that_an_agent_believes(server: Endpoints):
    """A report is answered with a reply that an agent believes."""
    response = server.client.post(URL, content=report().to_json(), headers=bearer(server.device()))

    assert response.status_code == 200
    reply = Reply.parse(response.content, "n-1")
    ((generation,),) = server.rows("select generation from scout_edge.settings")
    assert reply.generation == str(generation)
    assert reply.keep_for_days == 8
    assert reply.batches == {}
    assert reply.server_time.endswith("Z")


def test_a_batch_that_was_posted_is_settled_and_another_unknown(server: Endpoints):
    """A batch that was posted is settled and another unknown."""
    headers = bearer(server.device())
    jsonl, name = batch(1, 3)
    _, other = batch(4, 5)
    server.client.post("/ingest-transaction", content=jsonl, headers=headers | {"Idempotency-Key": name})

    response = server.client.post(URL, content=report(awaits=(name, other)).to_json(), headers=headers)

    assert Reply.parse(response.content, "n-1").batches == {name: "settled", other: "unknown"}
    assert server.wakes.count == 1
    assert server.rows("select device_id, key from scout_edge.awaited") == [("pi-05", other)]


def test_an_uploaded_batch_is_settled_once_loaded(server: Endpoints):
    """An uploaded batch is settled once loaded."""
    headers = bearer(server.device())
    jsonl, name = batch(1, 3)

    server.client.post("/storage/v1/object/scout-ingest/" + name, content=gzip.compress(jsonl), headers=headers)
    before = server.client.post(URL, content=report(awaits=(name,)).to_json(), headers=headers)
    loaded = server.client.post("/load-bronze-from-storage", content=b"{}", headers=bearer(server.service()))
    after = server.client.post(URL, content=report(awaits=(name,)).to_json(), headers=headers)

    assert Reply.parse(before.content, "n-1").batches == {name: "unknown"}
    assert loaded.json()["accepted"] == 3
    assert Reply.parse(after.content, "n-1").batches == {name: "settled"}
    assert server.rows("select * from scout_edge.awaited") == []


def test_a_copy_is_asked_for_by_its_number_until_it_is_settled(device: psycopg.Connection, server: Endpoints):
    """A copy is asked for by its number until it is settled."""
    jsonl, name = batch(1, 3)
    assert call(device, as_json(report(awaits=(name,))))["batches"] == {name: "unknown"}
    device.execute("update scout_edge.awaited set resend = 2")
    assert call(device, as_json(report(awaits=(name,))))["batches"] == {name: "resend 2"}

    copy = name.replace(".jsonl.gz", "-r2.jsonl.gz")
    posted = server.client.post(
        "/ingest-transaction", content=jsonl, headers=bearer(server.device()) | {"Idempotency-Key": copy}
    )

    assert posted.json()["accepted"] == 3
    assert call(device, as_json(report(awaits=(name,))))["batches"] == {name: "settled"}
    assert device.execute("select * from scout_edge.awaited").fetchall() == []


def test_asking_again_does_not_move_the_first_time(device: psycopg.Connection):
    """Asking again does not move the first time."""
    _, name = batch(1, 3)
    asked = []
    for _ in range(2):
        call(device, as_json(report(awaits=(name,))))
        asked.append(device.execute("select asked_at from scout_edge.awaited").fetchone())

    assert asked[0] is not None
    assert asked[0] == asked[1]


def test_names_that_are_no_batch_of_this_device_are_unknown_and_not_looked_up(device: psycopg.Connection):
    """Names that are no batch of this device are unknown and not looked up."""
    _, foreign = batch(1, 3, "pi-06")
    names = (foreign, "", "../../etc/passwd", "2026-01-20/pi-05/data.jsonl", "x" * 500)

    assert call(device, as_json(report(awaits=names)))["batches"] == dict.fromkeys(names, "unknown")
    assert device.execute("select * from scout_edge.awaited").fetchall() == []


def test_no_more_than_500_names_are_answered(device: psycopg.Connection):
    """No more than 500 names are answered."""
    names = tuple(batch(seq, seq)[1] for seq in range(1, AWAITED_MAX + 11))

    answered = call(device, as_json(report(awaits=names)))["batches"]

    assert answered == dict.fromkeys(names[:AWAITED_MAX], "unknown")


def heads(connection: psycopg.Connection) -> list[tuple[Any, ...]]:
    """What the database holds of every epoch."""
    return connection.execute("select epoch, head, unsettled::text from scout_edge.heads order by epoch").fetchall()


def test_a_head_only_rises_and_the_unsettled_runs_are_replaced(device: psycopg.Connection):
    """A head only rises and the unsettled runs are replaced."""
    call(device, as_json(report(epochs=(EpochState(EPOCH, 100, ((1, 10), (90, 100))),))))
    call(device, as_json(report(epochs=(EpochState(EPOCH, 50, ((3, 3),)), EpochState(OTHER_EPOCH, 0, ())))))

    assert heads(device) == [(EPOCH, 100, "{[3,4)}"), (OTHER_EPOCH, 0, "{}")]


def test_what_a_device_lost_is_what_it_said_last(device: psycopg.Connection):
    """What a device lost is what it said last."""
    lost = []
    for runs in (((3, 5), (9, 9)), ((3, 5),), ()):
        call(device, as_json(report(epochs=(EpochState(EPOCH, 100, (), lost=runs),))))
        lost += device.execute("select lost::text from scout_edge.heads").fetchall()

    assert lost == [("{[3,6),[9,10)}",), ("{[3,6)}",), ("{}",)]


def alarms(connection: psycopg.Connection) -> list[tuple[Any, ...]]:
    """The alarms of every device, and whether they are open."""
    return connection.execute("select kind, detail, resolved_at is null from scout_edge.alarms").fetchall()


def test_a_head_that_rises_too_far_is_an_alarm_and_makes_no_gap(device: psycopg.Connection):
    """The rest of the report counts, receipts included; a truthful report ends the alarm."""
    _, name = batch(1, 3)
    call(device, as_json(report(epochs=(EpochState(EPOCH, 5, ((1, 5),)),))))
    for head in (10**12 - 1, 1_000_006):
        lie = EpochState(EPOCH, head, ((2, 5),), lost=((1, 1),))
        answer = call(device, as_json(report(awaits=(name,), epochs=(EpochState(OTHER_EPOCH, 7, ()), lie))))
        assert answer["batches"] == {name: "unknown"}
        assert heads(device) == [(EPOCH, 5, "{[2,6)}"), (OTHER_EPOCH, 7, "{}")]
        assert alarms(device) == [("head_jumped", f"epoch {EPOCH}: head {head} was reported", True)]
    missing = device.execute("select epoch, first_seq, last_seq from scout_bronze.gaps order by epoch").fetchall()

    call(device, as_json(report(epochs=(EpochState(EPOCH, 1_000_005, ()),))))

    assert missing == [(EPOCH, 1, 1), (OTHER_EPOCH, 1, 7)]
    assert heads(device)[0] == (EPOCH, 1_000_005, "{}")
    assert [is_open for *_, is_open in alarms(device)] == [False]


def test_a_device_cannot_fill_the_list_of_heads(device: psycopg.Connection):
    """Beyond 100,000 epochs it raises an alarm; those known are kept up to date, and the rest of the report counts."""
    device.execute(
        "insert into scout_edge.heads (device_id, epoch, head, unsettled, first_heard_at, last_heard_at)"
        " select %s, lpad(to_hex(n), 16, '0'), 1, '{}', now(), now() from generate_series(1, 99999) as n",
        ["pi-05"],
    )
    _, name = batch(1, 3)
    new = [EpochState(f"f{number:015x}", 5, ()) for number in range(3)]
    answer = call(device, as_json(report(awaits=(name,), epochs=(*new, EpochState(f"{7:016x}", 9, ())))))

    assert answer["batches"] == {name: "unknown"}
    assert alarms(device) == [("too_many_epochs", "more than 100000 epochs were reported", True)]
    noted = device.execute("select epoch, head from scout_edge.heads where head > 1 order by epoch").fetchall()
    assert noted == [(f"{7:016x}", 9), ("f" + "0" * 15, 5)]

    call(device, as_json(report(epochs=(EpochState(f"{7:016x}", 9, ()),))))
    assert [is_open for *_, is_open in alarms(device)] == [False]


def test_a_head_that_rose_far_offline_is_believed_once_rows_prove_it(device: psycopg.Connection):
    """Each delivery raises what may be believed; the alarm ends by itself."""
    rose = as_json(report(epochs=(EpochState(EPOCH, 1_500_000, ((1, 1_500_000),)),)))
    call(device, rose)
    believed = heads(device)
    for seq in (400_000, 500_000):
        device.execute(
            "insert into scout_bronze.transactions_raw"
            " (load_id, device_id, epoch, seq, id, payload, object_key, line)"
            " values (1, 'pi-05', %s, %s, gen_random_uuid(), '{}', 'k', 1)",
            [EPOCH, seq],
        )
        call(device, rose)
        believed += heads(device)

    assert [head for _, head, _ in believed] == [0, 400_000, 1_500_000]
    assert [is_open for *_, is_open in alarms(device)] == [False]


def test_a_lie_of_one_device_is_no_alarm_of_another(device: psycopg.Connection):
    """A lying device harms only itself: each alarm and each generation is one device's."""
    tokens.add_device(device, "pi-06")
    call(device, as_json(report(epochs=(EpochState(EPOCH, 10**9, ()),))))
    call(device, as_json(report(epochs=(EpochState(EPOCH, 4, ()),))), sub="pi-06")

    assert device.execute("select device_id from scout_edge.alarms").fetchall() == [("pi-05",)]
    assert device.execute("select device_id, head from scout_edge.heads order by 1").fetchall() == [
        ("pi-05", 0),
        ("pi-06", 4),
    ]


def test_a_device_that_is_asked_anew_hears_a_generation_of_its_own(device: psycopg.Connection):
    """Another one each time, also after a restore; nobody else hears it."""
    tokens.add_device(device, "pi-06")
    told = [call(device, as_json(report()))["generation"]]
    for statement in (
        "insert into scout_edge.asked_anew values ('pi-05', 1, now())",
        "update scout_edge.asked_anew set times = 2",
        "update scout_edge.settings set generation = gen_random_uuid()",
    ):
        device.execute(statement.encode())
        told.append(call(device, as_json(report()))["generation"])
    other = call(device, as_json(report()), sub="pi-06")["generation"]

    assert len(set(told)) == 4
    assert other not in told
    assert device.execute("select generation::text from scout_edge.settings").fetchall() == [(other,)]


@pytest.mark.parametrize(
    "epoch",
    [
        {"epoch": EPOCH, "head": 5, "unsettled": [[0, 3]]},
        {"epoch": EPOCH, "head": 5, "unsettled": [[3, 2]]},
        {"epoch": EPOCH, "head": 5, "unsettled": [[1, 6]]},
        {"epoch": EPOCH, "head": 5, "unsettled": [[1]]},
        {"epoch": EPOCH, "head": 5, "unsettled": [[1, 2, 3]]},
        {"epoch": EPOCH, "head": 5, "unsettled": [["1", 2]]},
        {"epoch": EPOCH, "head": 5, "unsettled": [[1.5, 2]]},
        {"epoch": EPOCH, "head": 5, "unsettled": [None]},
        {"epoch": EPOCH, "head": 5, "unsettled": {"1": 2}},
        {"epoch": EPOCH, "head": 5},
        {"epoch": EPOCH, "head": 5, "unsettled": [], "lost": [[1, 6]]},
        {"epoch": EPOCH, "head": 5, "unsettled": [], "lost": [[1, "2"]]},
        {"epoch": EPOCH, "head": 5, "unsettled": [], "lost": None},
        {"epoch": EPOCH, "head": -1, "unsettled": []},
        {"epoch": EPOCH, "head": 10**12, "unsettled": []},
        {"epoch": EPOCH, "head": "5", "unsettled": []},
        {"epoch": EPOCH, "unsettled": []},
        {"epoch": "short", "head": 5, "unsettled": []},
        {"head": 5, "unsettled": []},
        "text",
        None,
    ],
)
def test_a_malformed_epoch_is_refused_and_nothing_of_the_report_is_kept(device: psycopg.Connection, epoch: object):
    """A malformed epoch is refused and nothing of the report is kept."""
    body = as_json(report(), epochs=[{"epoch": OTHER_EPOCH, "head": 9, "unsettled": []}, epoch])
    with pytest.raises(psycopg.errors.InvalidParameterValue):
        call(device, body)

    assert heads(device) == []
    assert device.execute("select * from scout_edge.heartbeats").fetchall() == []


@pytest.mark.parametrize(
    "body",
    [
        [],
        "text",
        5,
        None,
        {},
        {"nonce": ""},
        {"nonce": "x" * 201},
        {"nonce": "n", "awaits": {}},
        {"nonce": "n", "epochs": "x"},
        {"nonce": "n", "padding": "x" * 1_048_576},
    ],
)
def test_what_is_no_report_is_refused(device: psycopg.Connection, body: object):
    """What is no report is refused."""
    with pytest.raises(psycopg.errors.InvalidParameterValue):
        call(device, body)


def test_unknown_fields_and_missing_lists_are_no_error(device: psycopg.Connection):
    """Unknown fields and missing lists are no error."""
    assert call(device, {"nonce": "n-2", "from_the_future": [1]})["nonce"] == "n-2"


def test_the_newest_report_and_one_an_hour_are_kept(device: psycopg.Connection):
    """The newest report and one an hour are kept."""
    _, name = batch(1, 1)
    for rows in (1, 2):
        call(device, as_json(report(awaits=(name,)), waiting_rows=rows))
    device.execute("update scout_edge.heartbeat_history set hour = hour - interval '1 hour'")
    call(device, as_json(report(), waiting_rows=3))

    newest = device.execute("select report ->> 'waiting_rows', report ? 'awaits' from scout_edge.heartbeats").fetchall()
    hourly = device.execute(
        "select report ->> 'waiting_rows' from scout_edge.heartbeat_history order by hour"
    ).fetchall()
    assert newest == [("3", False)]
    assert hourly == [("2",), ("3",)]


@pytest.mark.parametrize(
    "claims",
    [{"role": "service_role"}, {"role": None}, {"sub": None}, {"sub": "pi-99"}, {"iat": 0}],
    ids=["another role", "no role", "no subject", "unknown device", "before rotation"],
)
def test_the_function_itself_refuses_other_claims(device: psycopg.Connection, claims: dict[str, Any]):
    """The function itself refuses other claims."""
    device.execute("update scout_edge.devices set tokens_valid_from = %s", [NOW])
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        call(device, as_json(report()), **claims)

    assert call(device, as_json(report()))["nonce"] == "n-1"


def test_the_function_refuses_a_revoked_device_on_its_next_call(device: psycopg.Connection):
    """The function refuses a revoked device on its next call."""
    call(device, as_json(report()))
    device.execute("update scout_edge.devices set revoked_at = now()")

    with pytest.raises(psycopg.errors.InsufficientPrivilege, match="device revoked"):
        call(device, as_json(report()))


def test_a_device_role_reaches_nothing_but_heartbeat(device: psycopg.Connection):
    """A device role reaches nothing but heartbeat."""
    forbidden = [
        "select * from scout_edge.devices",
        "select * from scout_bronze.files",
        "select scout_edge.token_refusal('edge_uploader', 'pi-05', 0, null)",
        "select scout_bronze.is_settled('pi-05', 'x')",
        "create table public.mine (x int)",
    ]
    for statement in forbidden:
        device.execute("set role edge_uploader")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            device.execute(statement.encode())
        device.execute("reset role")


def test_nobody_else_may_call_it(device: psycopg.Connection):
    """Nobody else may call it."""
    rights = device.execute(
        "select coalesce(array_agg(grantee::regrole::text order by 1), '{}') from pg_proc,"
        " aclexplode(proacl) where proname = 'heartbeat' and privilege_type = 'EXECUTE' and grantee <> proowner"
    ).fetchone()
    assert rights == (["edge_uploader"],)


def test_a_poisoned_search_path_changes_nothing(device: psycopg.Connection):
    """A poisoned search path changes nothing."""
    device.execute("create schema trap")
    device.execute("create table trap.settings (generation text)")
    device.execute("set search_path = trap")

    assert call(device, as_json(report()))["nonce"] == "n-1"


NOT_ALLOWED = {"device revoked", "device unknown", "no subject", "authenticated"}


def test_every_bad_token_is_refused_as_postgrest_refuses_it(server: Endpoints):
    """Every bad token is refused as PostgREST refuses it."""
    matrix = outlaws(server)

    assert matrix.keys() > NOT_ALLOWED
    for name, token in matrix.items():
        response = server.client.post(URL, content=report().to_json(), headers=bearer(token) if token else {})
        assert response.status_code == (403 if name in NOT_ALLOWED else 401), name
        assert response.json()["code"] in ("42501", "PGRST301"), name
    assert server.rows("select * from scout_edge.heartbeats") == []


def test_a_service_token_is_no_device(server: Endpoints):
    """A service token is no device."""
    response = server.client.post(URL, content=report().to_json(), headers=bearer(server.service()))

    assert (response.status_code, response.json()["code"]) == (403, "42501")


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"{", "PGRST102"),
        (b"", "PGRST102"),
        (b"[]", "22023"),
        (b'{"nonce":"n","epochs":[1]}', "22023"),
        (b'{"nonce":"\\u0000"}', "22P05"),
    ],
)
def test_a_malformed_report_is_400_with_a_code(server: Endpoints, body: bytes, code: str):
    """A malformed report is 400 with a code."""
    response = server.client.post(URL, content=body, headers=bearer(server.device()))

    assert (response.status_code, response.json()["code"]) == (400, code)
    assert response.json()["message"]


def test_a_report_over_the_limit_is_refused(pool: ConnectionPool, bucket: FolderBucket):
    """A report over the limit is refused."""
    with running(pool, bucket, report_bytes_max=1000) as server:
        response = server.client.post(URL, content=b" " * 1001, headers=bearer(server.device()))

    assert response.status_code == 413


# Loading on demand, and health.


def test_a_day_is_loaded_on_demand_for_a_service_token_only(server: Endpoints):
    """A day is loaded on demand for a service token only."""
    token = server.device()
    server.client.post(
        "/storage/v1/object/scout-ingest/2025-03-04/pi-05/data.jsonl", content=b'{"a":1}\n', headers=bearer(token)
    )
    url = "/load-bronze-from-storage"
    of_device = server.client.post(url, content=b"{}", headers=bearer(token))
    of_nobody = server.client.post(url, content=b"{}")
    other_day = server.client.post(url, content=b'{"date":"2026-01-20"}', headers=bearer(server.service()))
    that_day = server.client.post(url, content=b'{"date":"2025-03-04"}', headers=bearer(server.service()))

    assert [of_device.status_code, of_nobody.status_code] == [403, 401]
    assert (other_day.status_code, other_day.json()["accepted"]) == (200, 0)
    assert (that_day.status_code, that_day.json()["accepted"]) == (200, 1)


@pytest.mark.parametrize("body", [b'{"date":"2026-13-01"}', b'{"date":5}', b"[]", b"x", b'{"day":"2026-01-20"}'])
def test_what_is_no_date_is_refused(server: Endpoints, body: bytes):
    """What is no date is refused."""
    response = server.client.post("/load-bronze-from-storage", content=body, headers=bearer(server.service()))

    assert response.status_code == 400


def test_health_follows_the_database(server: Endpoints):
    """Health follows the database."""
    well = server.client.get("/healthz")
    server.pool.close()
    ill = server.client.get("/healthz")

    assert (well.status_code, ill.status_code) == (200, 503)
    assert ill.headers["Retry-After"]


def test_unknown_paths_and_methods_are_answered_in_json(server: Endpoints):
    """Unknown paths and methods are answered in JSON."""
    unknown, wrong = server.client.get("/nothing"), server.client.get("/ingest-transaction")

    assert (unknown.status_code, wrong.status_code) == (404, 405)
    assert unknown.json()["error"] == "not_found"
    assert wrong.json()["message"]
