"""The delivery loop: a fake clock, a real spool, a real server on a socket."""

import gzip
import json
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from agent_kit import DEVICE, a_token
from delivery_bench import DAY_S, Bench
from structlog.testing import capture_logs

from agent.credentials import CREDENTIALS_PAUSE_S
from agent.errors import SpoolMalformed
from wire.batch import BatchName

ROW_LEVEL = b'{"statusCode":"403","code":"AccessDenied","message":"new row violates row-level security policy"}'
TOO_LARGE = b'{"statusCode":"413","code":"EntityTooLarge","message":"The object exceeded the maximum allowed size"}'
REVOKED = b'{"code":"42501","message":"the device is revoked"}'
EXPIRED = b'{"statusCode":"403","code":"AccessDenied","message":"\\"exp\\" claim timestamp check failed"}'
PORTAL = b"<html>Free WiFi</html>"


def only_for(part: str, answer: tuple[int, bytes]) -> Callable[[str, bytes], tuple[int, bytes] | None]:
    """Script an answer for paths that contain `part`; the others are served."""
    return lambda path, _body: answer if part in path else None


def test_a_sale_is_sealed_sent_settled_and_forgotten(bench: Bench) -> None:
    """The whole life, with nothing in the way."""
    bench.sell(1, 2, 3)
    bench.run_for(5.0)
    assert sorted(bench.server.numbers()) == [1, 2, 3]
    assert bench.spool.state().accepted_rows == 3
    bench.run_for(120.0)
    state = bench.spool.state()

    assert (state.settled_rows, state.unsent_rows, state.accepted_rows) == (3, 0, 0)
    assert bench.paths() == ["bucket"] * 3


def test_a_sale_is_sealed_within_its_age_whatever_the_loop_was_waiting_for(make: Callable[..., Bench]) -> None:
    """Nobody wakes the loop for a new sale, so it must come back by itself in time."""
    bench = make(heartbeat={"interval_s": 3600.0}, batch={"rows_max": 2000, "age_max_s": 10.0})
    wait_s = bench.delivery.step()
    bench.clock.pass_s(1.0)
    bench.sell(1)

    assert bench.run_until_stored(wait_s - 1.0) <= 10.001


def test_the_other_path_gets_the_same_batch_under_the_same_name(make: Callable[..., Bench]) -> None:
    """After failures in a row, and the bucket is asked again after a while."""
    bench = make(upload={"failover_after_failures": 2, "failback_after_s": 600.0})
    bench.server.answer = only_for("/storage/", (500, b""))
    bench.sell(1)
    bench.run_for(60.0)
    (key,) = bench.server.stored
    sent = [(path, headers, body) for path, headers, body in bench.server.requests if "heartbeat" not in path]

    assert bench.paths() == ["bucket", "bucket", "endpoint"]
    assert {path.partition("/scout-ingest/")[2] for path, _, _ in sent[:2]} == {key}
    assert sent[2][1]["Idempotency-Key"] == key
    assert len({gzip.decompress(body) for _, _, body in sent}) == 1

    bench.server.answer = lambda _path, _body: None
    bench.run_for(600.0)
    bench.sell(2, 3)
    bench.run_for(30.0)
    assert bench.paths()[3:] == ["bucket", "bucket"]
    assert sorted(bench.server.numbers()) == [1, 2, 3]


@pytest.mark.parametrize("mode", ["bucket", "endpoint"])
def test_a_chosen_path_is_kept(make: Callable[..., Bench], mode: str) -> None:
    """The config's word counts."""
    bench = make(upload={"mode": mode, "retry_wait_max_s": 1.0})
    bench.server.answer = lambda path, _body: None if "heartbeat" in path else (500, b"")
    bench.sell(1)
    bench.run_for(30.0)

    assert len(bench.paths()) > 5
    assert set(bench.paths()) == {mode}


@pytest.mark.parametrize("mode", ["auto", "bucket", "endpoint"])
def test_a_poison_batch_is_set_aside_and_the_others_go_on(make: Callable[..., Bench], mode: str) -> None:
    """Whatever the number of paths that refuse it; it is seen, kept, and tried again daily."""
    bench = make(upload={"mode": mode, "retry_wait_max_s": 5.0})
    poisoned: list[str] = []

    def answer(path: str, body: bytes) -> tuple[int, bytes] | None:
        if "heartbeat" in path or b"t-2" not in gzip.decompress(body):
            return None
        poisoned.append(path)
        return 400, TOO_LARGE

    bench.server.answer = answer
    bench.sell(1, 2, 3, 4)
    with capture_logs() as logs:
        bench.run_for(600.0)
    assert sorted(bench.server.numbers()) == [1, 3, 4]
    assert len(poisoned) == bench.config.upload.refusals_max
    assert len({path.split("/")[1] for path in poisoned}) == (2 if mode == "auto" else 1)
    assert bench.spool.state().set_aside_rows == 1
    assert "batch_set_aside" in [log["event"] for log in logs]
    status = bench.status()
    assert status.rows_set_aside == 1
    assert status.exit_status == 1 or status.broken
    assert any("set aside" in problem.message for problem in status.attention)

    bench.run_for(DAY_S)
    assert len(poisoned) == bench.config.upload.refusals_max + 1
    bench.server.answer = lambda _path, _body: None
    bench.run_for(DAY_S + 60)
    assert sorted(bench.server.numbers()) == [1, 2, 3, 4]
    assert bench.spool.state().set_aside_rows == 0


@pytest.mark.parametrize("home", [(403, REVOKED), (401, b"{}"), (500, b""), (200, PORTAL)])
@pytest.mark.parametrize("refusal", [ROW_LEVEL, TOO_LARGE])
def test_no_refusal_sets_a_batch_aside_unless_the_same_token_is_welcome_at_home(
    bench: Bench, home: tuple[int, bytes], refusal: bytes
) -> None:
    """A revoked device looks like a refused object at the bucket; its batches are not to blame."""
    bench.server.answer = lambda path, _body: home if "heartbeat" in path else (400, refusal)
    bench.sell(1, 2)
    bench.run_for(3 * 3600.0)
    state = bench.spool.state()

    assert (state.waiting_rows, state.set_aside_rows) == (2, 0)
    bench.server.answer = lambda _path, _body: None
    bench.run_for(900.0)
    assert sorted(bench.server.numbers()) == [1, 2]


@pytest.mark.parametrize("answer", [(400, EXPIRED), (401, b"{}"), (403, REVOKED)])
def test_refused_credentials_are_tried_once_a_minute_until_there_is_another_token(
    bench: Bench, tmp_path: Path, answer: tuple[int, bytes]
) -> None:
    """No hammering, no loss, no set-aside; a new token file ends the pause at once."""
    bench.server.answer = lambda _path, _body: answer
    bench.sell(1)
    bench.run_for(3600.0)
    assert 30 <= len(bench.server.requests) <= 3600.0 / CREDENTIALS_PAUSE_S + 1
    assert bench.fault().kind == "credentials"
    assert bench.spool.state().set_aside_rows == 0

    bench.server.answer = lambda _path, _body: None
    new = a_token(bench.clock.now() + timedelta(days=30), jti="2")
    (tmp_path / "token.new").write_text(new)
    (tmp_path / "token.new").replace(tmp_path / "token")
    assert bench.run_until_stored(5.0) <= 10.0
    assert bench.server.requests[-1][1]["Authorization"] == f"Bearer {new}"


@pytest.mark.parametrize("content", [None, b"", b"not a token", b"\xff\xfe", b"a.b.c", a_token()[:-50].encode()])
def test_without_a_token_nothing_is_sent_and_everything_is_kept(
    bench: Bench, tmp_path: Path, content: bytes | None
) -> None:
    """Also where there was a good one before."""
    bench.sell(1)
    bench.run_for(5.0)
    assert len(bench.server.stored) == 1
    (tmp_path / "token").unlink()
    if content is not None:
        (tmp_path / "token").write_bytes(content)
    sent = len(bench.server.requests)
    bench.sell(2)
    bench.run_for(600.0)

    assert len(bench.server.requests) == sent
    assert bench.spool.state().waiting_rows == 1
    assert bench.fault().kind == "credentials"
    (tmp_path / "token").write_text(a_token())
    bench.run_for(90.0)
    assert sorted(bench.server.numbers()) == [1, 2]


@pytest.mark.parametrize("answer", [(200, PORTAL), (302, PORTAL), (200, b'{"Key":"another"}'), (511, PORTAL)])
def test_a_captive_portal_settles_and_accepts_nothing(bench: Bench, answer: tuple[int, bytes]) -> None:
    """And what it kept is sent once it is gone."""
    bench.sell(1)
    bench.run_for(5.0)
    assert bench.spool.state().accepted_rows == 1
    bench.server.answer = lambda _path, _body: answer
    bench.sell(2)
    bench.run_for(3600.0)
    state = bench.spool.state()

    assert (state.accepted_rows, state.waiting_rows, state.settled_rows) == (1, 1, 0)
    bench.server.answer = lambda _path, _body: None
    bench.run_for(900.0)
    assert bench.spool.state().settled_rows == 2


def replying(bench: Bench, **changed: object) -> Callable[[str, bytes], tuple[int, bytes] | None]:
    """Script the heartbeat's reply; uploads are served."""
    return lambda path, body: (200, bench.server.reply(body, **changed)) if "heartbeat" in path else None


@pytest.mark.parametrize(
    "changed",
    [
        {"nonce": "another"},
        {"server_time": "soon"},
        {"server_time": "0001-01-01T00:00:00Z"},
        {"keep_for_days": -1},
        {"keep_for_days": 10**12},
        {"batches": ["settled"]},
        {"batches": {}},
        {"batches": {"another": "settled", "": "resend 7"}},
    ],
)
def test_an_odd_reply_settles_nothing_and_ends_nothing(bench: Bench, changed: dict[str, object]) -> None:
    """Only what the reply to this very report names is settled."""
    bench.server.answer = replying(bench, **changed)
    bench.sell(1)
    bench.run_for(300.0)
    assert bench.spool.state().accepted_rows == 1
    bench.server.answer = lambda _path, _body: None
    bench.run_for(600.0)

    assert bench.spool.state().settled_rows == 1


@pytest.mark.parametrize("state", ["", "SETTLED", "settled ", "unknown", "resend", "resend 0", "resend ²", "x" * 9999])
def test_a_state_that_is_not_understood_changes_nothing(bench: Bench, state: str) -> None:
    """A newer server may say more than this agent knows."""
    bench.sell(1)
    bench.run_for(5.0)
    (key,) = bench.server.stored
    bench.server.answer = replying(bench, batches={key: state})
    bench.run_for(300.0)

    assert bench.spool.state().accepted_rows == 1
    assert bench.paths() == ["bucket"]


def test_a_batch_is_sent_again_when_asked_with_the_same_bytes_under_its_copys_name(bench: Bench) -> None:
    """Once for each number, however often the number is repeated; settled under its first name."""
    bench.sell(1)
    bench.run_for(5.0)
    (key,) = bench.server.stored
    jsonl = bench.server.stored[key]
    bench.server.answer = replying(bench, batches={key: "resend 2"})
    bench.run_for(600.0)
    copy = BatchName.parse(key).again(2).key
    assert bench.server.stored == {key: jsonl, copy: jsonl}
    assert bench.paths() == ["bucket", "bucket"]

    bench.server.answer = replying(bench, batches={key: "resend 1"})
    bench.run_for(600.0)
    assert bench.paths() == ["bucket", "bucket"]
    bench.server.answer = replying(bench, batches={key: "settled"})
    bench.run_for(600.0)
    assert bench.spool.state().settled_rows == 1


def test_a_new_generation_has_every_kept_batch_awaited_again(bench: Bench) -> None:
    """A database restored from a backup doesn't know what it had settled."""
    bench.sell(1, 2, 3)
    bench.run_for(200.0)
    assert bench.spool.state().settled_rows == 3
    lost = dict.fromkeys(bench.server.stored, "unknown")
    bench.server.answer = replying(bench, generation="g-2", batches=lost)
    bench.run_for(200.0)

    assert (bench.spool.state().settled_rows, bench.spool.state().accepted_rows) == (0, 3)
    bench.server.answer = replying(bench, generation="g-2", batches=dict.fromkeys(lost, "settled"))
    bench.run_for(200.0)
    assert bench.spool.state().settled_rows == 3


def test_only_the_settled_is_forgotten_and_only_by_the_servers_time(bench: Bench) -> None:
    """This device's clock may jump by decades without costing a sale its copy."""
    bench.sell(1, 2)
    bench.run_for(200.0)
    keys = list(bench.server.stored)
    bench.clock.now_is(bench.clock.now() + timedelta(days=20_000))  # and claims to be synchronised
    bench.run_for(200.0)
    assert bench.spool.state().settled_rows == 2
    bench.sell(3)
    bench.server.answer = replying(bench, batches=dict.fromkeys(keys, "settled"), server_time="2027-03-08T00:00:00Z")
    bench.run_for(200.0)
    assert bench.spool.state().settled_rows == 2
    bench.server.answer = replying(bench, batches={}, server_time="2027-03-20T00:00:00Z", keep_for_days=30)
    bench.run_for(200.0)
    assert bench.spool.state().settled_rows == 2
    bench.server.answer = replying(bench, batches={}, server_time="2027-03-20T00:00:00Z")
    bench.run_for(200.0)
    state = bench.spool.state()

    assert (state.settled_rows, state.accepted_rows) == (0, 1)


def test_an_altered_record_is_not_sent_and_the_spool_counts_as_damaged(bench: Bench) -> None:
    """The agent then begins anew and salvages (test_damage.py): nobody has to come, and nothing altered leaves."""
    bench.sell(1, 2)
    bench.spool.seal(bench.delivery._limits, bench.clock.now() - timedelta(days=1))
    bench.spool._connection.execute("update records set line = replace(line, '\"t-1\"', '\"t-9\"')")
    with pytest.raises(SpoolMalformed, match="no longer matches its checksum"):
        bench.run_for(60.0)

    assert bench.server.numbers() == []


def test_a_server_that_was_gone_for_a_day_gets_everything(bench: Bench) -> None:
    """No restart, no limit to the number of tries, and a report that says how it stands."""
    bench.server.answer = lambda _path, _body: (503, b"")
    bench.sell(*range(30))
    bench.run_for(DAY_S)
    assert bench.server.stored == {}
    assert bench.fault().kind == "wait"
    assert any("more than an hour" in problem.message for problem in bench.status().attention)
    bench.server.answer = lambda _path, _body: None
    bench.run_for(600.0)

    assert sorted(bench.server.numbers()) == list(range(30))
    assert bench.spool.state().settled_rows == 30
    assert bench.fault() is None
    report = json.loads([body for path, _, body in bench.server.requests if "heartbeat" in path][-1])
    assert report["waiting_rows"] == 0
    assert [(epoch["head"], epoch["unsettled"]) for epoch in report["epochs"]] == [(30, [])]


def test_a_report_awaits_what_was_accepted_and_names_this_device_nowhere(bench: Bench) -> None:
    """The token says who calls; the report says what it holds."""
    bench.sell(1)
    bench.run_for(5.0)
    bench.server.stored.clear()
    bench.run_for(90.0)
    report = json.loads([body for path, _, body in bench.server.requests if "heartbeat" in path][-1])

    assert [BatchName.parse(key).device_id for key in report["awaits"]] == [DEVICE]
    assert report["epochs"][0]["unsettled"] == [[1, 1]]
    assert report["accepted_rows"] == 1
