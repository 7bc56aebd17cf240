"""Identity: who is let in by a code and known by a key, and everybody who is not."""

import gzip
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from typing import Any

import jwt
import psycopg
import pytest
from endpoints import DEADLINE_S, NOW, SECRET, Endpoints, batch, bearer, claims_of_device, running, signed
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pis import FORM, Pi, code_for, enrolled, error_of
from psycopg_pool import ConnectionPool
from structlog.testing import capture_logs

from server import fleet, nonces, tokens
from server.buckets.folder import FolderBucket
from server.identity_api import WRONG_CODES_MAX, WRONG_CODES_WINDOW_S
from wire.identity import CODE_ALPHABET, CODE_SYMBOLS, NonceAnswer, TokenRequest, shown_code

HEARTBEAT = "/rest/v1/rpc/heartbeat"
UNPROVED = (401, "invalid_client")
NO_CODE = (400, "invalid_grant")
DAY = timedelta(days=1)


@pytest.fixture
def server(pool: ConnectionPool, bucket: FolderBucket) -> Iterator[Endpoints]:
    """Run the endpoints."""
    with running(pool, bucket) as endpoints:
        yield endpoints


def statuses(server: Endpoints, token: str) -> list[int]:
    """What bucket, endpoint and heartbeat say to a token of pi-05's."""
    jsonl, name = batch(1, 1)
    posts = (
        (f"/storage/v1/object/scout-ingest/{name}", gzip.compress(jsonl)),
        ("/ingest-transaction", b'{"transaction_id":"t1"}'),
        (HEARTBEAT, b'{"nonce":"n-1"}'),
    )
    answers = [server.client.post(path, content=content, headers=bearer(token)) for path, content in posts]
    taken = answers[0].status_code == 200 or b"409" in answers[0].content  # stored, or stored before
    return [200 if taken else 403, *(answer.status_code for answer in answers[1:])]


def is_let_in(server: Endpoints, token: str) -> bool:
    """Whether a token opens all three; never some of them."""
    (opens,) = {status == 200 for status in statuses(server, token)}
    return opens


# Enrolment


def test_a_code_lets_a_key_in_and_the_token_it_brings_opens_all_three(server: Endpoints) -> None:
    """Enrolled within one call, and known by the public half alone."""
    pi, token = enrolled(server)
    server.clock.at += timedelta(seconds=1)

    assert is_let_in(server, token)
    ((stored,),) = server.rows("select public_key from scout_edge.devices")
    assert stored == pi.key.public_key().public_bytes_raw()
    claims = jwt.decode(token, SECRET, algorithms=["HS256"], options={"verify_exp": False, "verify_iat": False})
    assert (claims["sub"], claims["role"], claims["exp"] - claims["iat"]) == ("pi-05", "edge_uploader", 30 * 86_400)


def test_a_code_serves_one_key_and_that_one_again_when_its_answer_was_lost(server: Endpoints) -> None:
    """Another key gets nothing by it, whether the first one repeats or not."""
    code = code_for(server)
    pi, other = Pi(server.client), Pi(server.client)
    first = pi.enrol(code)
    again = pi.enrol(code)

    assert error_of(other.ask_to_enrol(code)) == NO_CODE
    assert first != again
    server.clock.at += timedelta(seconds=1)
    assert is_let_in(server, first)
    assert is_let_in(server, again)
    assert error_of(other.ask_to_renew()) == UNPROVED


def test_of_two_keys_that_bring_one_code_at_once_one_is_let_in(server: Endpoints) -> None:
    """However the requests meet."""
    pis = [Pi(server.client) for _ in range(8)]
    code = code_for(server)
    meet = threading.Barrier(len(pis), timeout=DEADLINE_S)

    def ask(pi: Pi) -> int:
        assertion = pi.sign(pi.public_key)
        meet.wait()
        return pi.ask_to_enrol(code, assertion=assertion).status_code

    with ThreadPoolExecutor(len(pis)) as threads:
        answers = list(threads.map(ask, pis))

    assert sorted(answers) == [200] + [400] * 7
    assert [pi.ask_to_renew().status_code for pi in pis].count(200) == 1


def test_a_code_expires_also_for_the_key_that_used_it(server: Endpoints) -> None:
    """To the second before its end it is good."""
    used, unused = code_for(server, hours=1), code_for(server, "pi-06", hours=1)
    pi, other = Pi(server.client), Pi(server.client, "pi-06")
    pi.enrol(used)
    server.clock.at += timedelta(hours=1) - timedelta(seconds=1)
    pi.enrol(used)
    server.clock.at += timedelta(seconds=1)

    assert [error_of(pi.ask_to_enrol(used)), error_of(other.ask_to_enrol(unused))] == [NO_CODE] * 2
    assert pi.ask_to_renew().status_code == 200


def test_a_newer_code_voids_the_ones_before_it(server: Endpoints) -> None:
    """One slip of paper counts."""
    first, second = code_for(server), code_for(server)

    assert error_of(Pi(server.client).ask_to_enrol(first)) == NO_CODE
    assert Pi(server.client).ask_to_enrol(second).status_code == 200


def test_a_code_is_stored_as_its_hash_alone_and_has_80_bits(server: Endpoints) -> None:
    """Nobody who reads the database can enrol by what it says."""
    codes = {code_for(server, f"pi-{number}") for number in range(50)}
    stored = str(server.rows("select * from scout_edge.enrolments"))

    assert len(codes) == 50
    assert len(CODE_ALPHABET) ** CODE_SYMBOLS == 2**80
    assert {symbol for code in codes for symbol in code} <= {*CODE_ALPHABET, "-"}
    assert not [code for code in codes if code in stored or code.replace("-", "") in stored]


def test_a_code_is_taken_as_people_type_it(server: Endpoints) -> None:
    """In small letters, without dashes, with O for 0 and l for 1."""
    code = code_for(server)
    typed = f"  {code.lower().replace('-', ' ').replace('0', 'o').replace('1', 'l')} "

    assert Pi(server.client).ask_to_enrol(typed).status_code == 200


def test_who_guesses_codes_is_made_to_wait_however_many_at_once(server: Endpoints) -> None:
    """Ten tries in ten minutes and not one more; then even a good code waits, and later it is good."""
    code = code_for(server)
    pis = [Pi(server.client) for _ in range(2 * WRONG_CODES_MAX)]
    asked = [(pi, pi.sign(pi.public_key)) for pi in pis]
    with ThreadPoolExecutor(len(pis)) as threads:
        answers = list(threads.map(lambda one: one[0].ask_to_enrol(guess(), assertion=one[1]), asked))
    braked = Pi(server.client).ask_to_enrol(code)

    assert sorted(answer.status_code for answer in answers) == [400] * WRONG_CODES_MAX + [429] * WRONG_CODES_MAX
    assert error_of(braked) == (429, "temporarily_unavailable")
    assert 0 < int(braked.headers["Retry-After"]) <= WRONG_CODES_WINDOW_S
    server.clock.at += timedelta(seconds=WRONG_CODES_WINDOW_S)
    assert Pi(server.client).ask_to_enrol(code).status_code == 200


def test_behind_a_proxy_on_this_machine_the_address_that_it_names_is_braked(server: Endpoints) -> None:
    """Or one who guesses would keep out everybody that comes through it."""
    for _ in range(WRONG_CODES_MAX + 1):
        server.client.headers["X-Forwarded-For"] = "192.0.2.1"
        guessed = Pi(server.client).ask_to_enrol(guess())
    server.client.headers["X-Forwarded-For"] = "192.0.2.2"

    assert guessed.status_code == 429
    assert Pi(server.client).ask_to_enrol(code_for(server)).status_code == 200


def guess() -> str:
    """A code that opens nothing."""
    return shown_code("0" * CODE_SYMBOLS)


def test_good_codes_are_never_braked(server: Endpoints) -> None:
    """A technician may enrol a whole van of devices from one line."""
    answers = [
        Pi(server.client).ask_to_enrol(code_for(server, f"pi-{number}")).status_code
        for number in range(2 * WRONG_CODES_MAX)
    ]

    assert set(answers) == {200}


def test_a_code_for_another_device_is_refused_and_not_used_up(server: Endpoints) -> None:
    """A mistaken slip of paper makes no second pi-05."""
    code = code_for(server, "pi-05")
    mistaken = Pi(server.client).ask_to_enrol(code, device_id="pi-06")

    assert error_of(mistaken) == NO_CODE
    assert "pi-05" in mistaken.text
    assert Pi(server.client).ask_to_enrol(code, device_id="pi-05").status_code == 200


def test_a_lost_key_is_replaced_by_a_new_code_and_ends_what_was_before(server: Endpoints) -> None:
    """The old key, its tokens, and those that were made by hand."""
    by_hand = server.device()
    lost, token = enrolled(server)
    server.clock.at += timedelta(seconds=5)
    assert is_let_in(server, token)
    assert not is_let_in(server, by_hand)

    found, new = enrolled(server)
    server.clock.at += timedelta(seconds=1)

    assert (is_let_in(server, token), is_let_in(server, new)) == (False, True)
    assert error_of(lost.ask_to_renew()) == UNPROVED
    assert found.ask_to_renew().status_code == 200
    assert server.rows("select count(*) from scout_edge.devices") == [(1,)]


def test_a_key_is_let_in_only_by_who_proves_to_hold_it(server: Endpoints) -> None:
    """Whoever saw a public key can't have it enrolled."""
    pi, thief = Pi(server.client), Pi(server.client)
    code = code_for(server)
    forged = thief.sign(pi.public_key)

    assert error_of(pi.ask_to_enrol(code, assertion=forged)) == UNPROVED
    assert pi.ask_to_enrol(code).status_code == 200


@pytest.mark.parametrize("device_id", ["", "Pi 05", "pi\x0005", "x" * 64])
def test_what_can_name_no_device_is_not_repeated(server: Endpoints, device_id: str) -> None:
    """Nor does it use up the code."""
    code = code_for(server)
    answer = Pi(server.client).ask_to_enrol(code, device_id=device_id)

    assert error_of(answer) == (400, "invalid_request")
    assert Pi(server.client).ask_to_enrol(code).status_code == 200


@pytest.mark.parametrize("body", [b"", b"{}", b"[]", b"\xff", b'{"code":1}', b"[" * 10_000, b'{"code":"\\ud800"}'])
def test_a_malformed_enrolment_is_refused_in_the_same_shape(server: Endpoints, body: bytes) -> None:
    """And costs no try."""
    for _ in range(2 * WRONG_CODES_MAX):
        assert error_of(server.client.post("/enrol", content=body)) == (400, "invalid_request")


# Renewal


def test_a_key_renews_its_token_whenever_and_however_long_it_was_away(server: Endpoints) -> None:
    """Ninety days after the last token expired; no clock of the device's has a part in it."""
    pi, first = enrolled(server)
    server.clock.at += 120 * DAY
    assert not is_let_in(server, first)

    assert is_let_in(server, pi.renew())


def test_a_stolen_token_renews_nothing(server: Endpoints) -> None:
    """Neither as a bearer, nor as an assertion, nor its claims signed with another key."""
    _, token = enrolled(server)
    thief = Pi(server.client)
    claims = jwt.decode(token, options={"verify_signature": False})
    tries = [
        server.client.post("/oauth/token", content=b"grant_type=client_credentials", headers=bearer(token)),
        server.client.post("/oauth/token", content=TokenRequest("").to_form(), headers=FORM | bearer(token)),
        thief.ask_to_renew(token),
        thief.ask_to_renew(jwt.encode(claims, thief.key, algorithm="EdDSA")),
        thief.ask_to_renew(),
    ]

    assert [answer.status_code for answer in tries] == [400, 401, 401, 401, 401]
    assert server.rows("select count(*) from scout_edge.tokens") == [(1,)]


def test_a_stolen_token_that_is_revoked_opens_nothing_and_the_device_goes_on(server: Endpoints) -> None:
    """By its id, on the next request."""
    pi, stolen = enrolled(server)
    server.clock.at += timedelta(seconds=1)
    assert is_let_in(server, stolen)
    jti = jwt.decode(stolen, options={"verify_signature": False})["jti"]
    with server.pool.connection() as connection:
        fleet.revoke_token(connection, jti, server.clock.at)

    assert not is_let_in(server, stolen)
    assert is_let_in(server, pi.renew())


def test_an_assertion_is_good_once(server: Endpoints) -> None:
    """Who recorded it on the way gets nothing, now or after its nonce expired and was forgotten."""
    pi, _ = enrolled(server)
    recorded = pi.sign("pi-05")
    assert pi.ask_to_renew(recorded).status_code == 200

    assert error_of(pi.ask_to_renew(recorded)) == UNPROVED
    server.clock.at += timedelta(seconds=nonces.LIFE_S + 1)
    pi.renew()
    assert server.rows("select count(*) from scout_edge.used_nonces") == [(1,)]
    assert error_of(pi.ask_to_renew(recorded)) == UNPROVED


def test_of_the_same_assertion_sent_many_times_at_once_one_is_accepted(server: Endpoints) -> None:
    """However the requests meet."""
    pi, _ = enrolled(server)
    recorded = pi.sign("pi-05")
    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda _: pi.ask_to_renew(recorded).status_code, range(8)))

    assert sorted(answers) == [200] + [401] * 7


def test_an_assertion_of_enrolment_renews_nothing_and_the_other_way_round(server: Endpoints) -> None:
    """Each names whom it speaks for."""
    pi, _ = enrolled(server)
    code = code_for(server)

    assert error_of(pi.ask_to_renew(pi.sign(pi.public_key))) == UNPROVED
    assert error_of(pi.ask_to_enrol(code, assertion=pi.sign("pi-05"))) == UNPROVED


@pytest.mark.parametrize(
    "changed",
    [
        {"sub": "pi-06"},
        {"iss": "pi-06"},
        {"iss": "pi-06", "sub": "pi-06"},
        {"iss": "pi-99", "sub": "pi-99"},
        {"aud": "another"},
        {"aud": None},
        {"exp": int(NOW.timestamp()) + 86_400},
        {"exp": None},
        {"jti": None},
        {"jti": "AAAA"},
        {"jti": 7},
        {"sub": "pi\x0005", "iss": "pi\x0005"},
        {"sub": "\ud800", "iss": "\ud800"},
        {"sub": "", "iss": ""},
    ],
)
def test_an_assertion_with_one_claim_changed_is_refused(server: Endpoints, changed: dict[str, Any]) -> None:
    """Another device's, another server's, or one that would be good for longer."""
    pi, _ = enrolled(server)
    enrolled(server, "pi-06")

    assert error_of(pi.ask_to_renew(pi.sign("pi-05", **changed))) == UNPROVED


def test_a_nonce_is_ours_and_good_for_minutes(server: Endpoints) -> None:
    """Made up, of another server's, altered or old ones prove nothing."""
    pi, _ = enrolled(server)
    good = pi.nonce()
    foreign = nonces.new_nonce("another-secret-of-at-least-32-bytes-", NOW)
    altered = replace(good, nonce=("A" if good.nonce[0] != "A" else "B") + good.nonce[1:])
    for bad in (foreign, altered, NonceAnswer("AAAA", good.expires_at)):
        assert error_of(pi.ask_to_renew(pi.sign("pi-05", bad))) == UNPROVED
    server.clock.at += timedelta(seconds=nonces.LIFE_S + 1)

    assert error_of(pi.ask_to_renew(pi.sign("pi-05", good))) == UNPROVED
    assert server.rows("select count(*) from scout_edge.used_nonces") == [(1,)]


@pytest.mark.parametrize("algorithm", ["none", "HS256"])
def test_an_assertion_of_another_algorithm_is_refused(server: Endpoints, algorithm: str) -> None:
    """Nobody chooses how little is checked, nor signs with the public key as if it were a secret."""
    pi, _ = enrolled(server)
    nonce = pi.nonce()
    claims = {"iss": "pi-05", "sub": "pi-05", "aud": "scout-edge", "exp": nonce.expires_at, "jti": nonce.nonce}
    secret = pi.key.public_key().public_bytes_raw() if algorithm == "HS256" else ""

    assert error_of(pi.ask_to_renew(jwt.encode(claims, secret, algorithm=algorithm))) == UNPROVED


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=300) | st.text(max_size=100).map(lambda text: TokenRequest(text).to_form()))
def test_whatever_is_posted_no_token_comes_of_it(server: Endpoints, body: bytes) -> None:
    """And every refusal has the shape of RFC 6749."""
    status, error = error_of(server.client.post("/oauth/token", content=body, headers=FORM))

    assert (status, error) in {UNPROVED, (400, "invalid_request"), (400, "unsupported_grant_type")}


def test_another_grant_type_is_named_as_unsupported(server: Endpoints) -> None:
    """As RFC 6749 section 5.2 says."""
    answer = server.client.post("/oauth/token", content=b"grant_type=password", headers=FORM)

    assert error_of(answer) == (400, "unsupported_grant_type")


def test_a_device_without_a_key_renews_nothing(server: Endpoints) -> None:
    """Its tokens are brought by hand."""
    server.device()

    assert error_of(Pi(server.client).ask_to_renew()) == UNPROVED


# Revocation and rotation


def test_revoking_a_device_is_effective_on_the_next_request_everywhere(server: Endpoints) -> None:
    """At bucket, endpoint, heartbeat, renewal, and for a code it was given before."""
    pi, token = enrolled(server)
    server.clock.at += timedelta(seconds=1)
    assert statuses(server, token) == [200, 200, 200]
    code = code_for(server)
    with server.pool.connection() as connection:
        fleet.revoke(connection, "pi-05", server.clock.at)

    assert statuses(server, token) == [403, 403, 403]
    assert error_of(pi.ask_to_renew()) == UNPROVED
    assert error_of(pi.ask_to_enrol(code)) == NO_CODE


def test_restoring_a_device_lets_it_in_as_before(server: Endpoints) -> None:
    """A slip of the operator's costs nothing."""
    pi, token = enrolled(server)
    server.clock.at += timedelta(seconds=1)
    with server.pool.connection() as connection:
        fleet.revoke(connection, "pi-05", server.clock.at)
        fleet.restore(connection, "pi-05", server.clock.at)

    assert is_let_in(server, token)
    assert pi.ask_to_renew().status_code == 200


def test_a_code_made_after_a_revocation_lets_another_device_in_under_the_name(server: Endpoints) -> None:
    """The thief of the first one stays out: there is no moment at which its key or token count again."""
    thief, stolen = enrolled(server)
    with server.pool.connection() as connection:
        fleet.revoke(connection, "pi-05", server.clock.at)
    code = code_for(server)
    assert not is_let_in(server, stolen)
    assert error_of(thief.ask_to_renew()) == UNPROVED
    new = Pi(server.client)
    token = new.enrol(code)
    server.clock.at += timedelta(seconds=1)

    assert is_let_in(server, token)
    assert not is_let_in(server, stolen)
    assert error_of(thief.ask_to_renew()) == UNPROVED


def heartbeat(server: Endpoints, token: str) -> bool:
    """What a call home says about renewing."""
    answer = server.client.post(HEARTBEAT, content=b'{"nonce":"n-1"}', headers=bearer(token))
    assert answer.status_code == 200, answer.text
    return bool(answer.json()["renew_token"])


def database_now(server: Endpoints) -> None:
    """Bring the server's clock to the database's, by which a call home is judged."""
    ((server.clock.at,),) = server.rows("select now()")


def test_a_call_home_asks_for_renewal_in_the_last_half_of_a_tokens_life(server: Endpoints) -> None:
    """Not before, and never of a device that has no key to renew with."""
    database_now(server)
    pi, _ = enrolled(server)
    by_hand = server.device("pi-06")
    now = server.clock.at
    asked = []
    for age_days in (14.9, 15.1):
        issued_at = int((now - age_days * DAY).timestamp())
        with server.pool.connection() as connection:
            connection.execute("update scout_edge.devices set tokens_valid_from = '-infinity'")
        token = signed(claims_of_device(iat=issued_at, exp=issued_at + 30 * 86_400))
        asked.append(heartbeat(server, token))
    old = int((now - 20 * DAY).timestamp())

    assert asked == [False, True]
    assert not heartbeat(server, pi.renew())
    assert not heartbeat(server, by_hand)
    assert not heartbeat(server, signed(claims_of_device("pi-06", iat=old, exp=old + 30 * 86_400)))


def test_a_rotation_asks_for_renewal_and_the_present_tokens_count_until_then(server: Endpoints) -> None:
    """And is over once the device has renewed."""
    database_now(server)
    pi, token = enrolled(server)
    server.clock.at += timedelta(seconds=2)
    assert not heartbeat(server, token)
    with server.pool.connection() as connection:
        fleet.rotate(connection, ["pi-05"], at_once=False, now=server.clock.at)

    assert heartbeat(server, token)
    server.clock.at += timedelta(seconds=1)
    assert not heartbeat(server, pi.renew())


def test_a_forced_rotation_ends_the_present_tokens_and_is_over_with_one_renewal(server: Endpoints) -> None:
    """Issuing starts with the next second: a renewal within the same one must not be outdated at once."""
    pi, token = enrolled(server)
    server.clock.at += timedelta(seconds=5, milliseconds=300)
    assert is_let_in(server, token)
    with server.pool.connection() as connection:
        fleet.rotate(connection, ["pi-05"], at_once=True, now=server.clock.at)

    assert not is_let_in(server, token)
    assert is_let_in(server, pi.renew())


def test_two_forced_rotations_within_a_second_end_what_was_issued_between_them(server: Endpoints) -> None:
    """A token issued after the first one begins with the next second, and so must not outlive the second one."""
    pi, _ = enrolled(server)
    ended = []
    for _ in range(3):
        ended.append(pi.renew())
        with server.pool.connection() as connection:
            fleet.rotate(connection, ["pi-05"], at_once=True, now=server.clock.at)
    last = pi.renew()
    server.clock.at += timedelta(seconds=10)

    assert [is_let_in(server, token) for token in (*ended, last)] == [False, False, False, True]


# A restore, another secret, and what is told


def test_after_a_restore_nothing_is_issued_until_the_revoked_are_confirmed(server: Endpoints) -> None:
    """The backup forgot who was revoked and which codes were used; tokens that count go on counting."""
    pi, token = enrolled(server)
    code = code_for(server, "pi-06")
    server.clock.at += timedelta(seconds=1)
    with server.pool.connection() as connection:
        fleet.after_restore(connection, server.clock.at)
    held = [pi.ask_to_renew(), Pi(server.client).ask_to_enrol(code)]
    assert [error_of(answer) for answer in held] == [(503, "temporarily_unavailable")] * 2
    assert all(answer.headers["Retry-After"] for answer in held)
    assert is_let_in(server, token)
    with server.pool.connection() as connection:
        fleet.confirm_revoked(connection)

    assert pi.ask_to_renew().status_code == 200
    assert error_of(Pi(server.client).ask_to_enrol(code)) == NO_CODE


def test_while_renewals_are_held_no_call_home_asks_for_one(server: Endpoints) -> None:
    """A device that is asked would be refused, again and again."""
    database_now(server)
    _, token = enrolled(server)
    server.clock.at += timedelta(seconds=2)
    with server.pool.connection() as connection:
        fleet.rotate(connection, ["pi-05"], at_once=False, now=server.clock.at)
        fleet.after_restore(connection, server.clock.at)

    assert not heartbeat(server, token)


def test_after_the_secret_was_changed_old_tokens_count_for_a_while_and_new_ones_are_of_the_new(
    pool: ConnectionPool, bucket: FolderBucket
) -> None:
    """A key that was known before renews under the new secret; after the while the old one opens nothing."""
    new = "the-next-secret-of-at-least-32-bytes"
    with running(pool, bucket) as before:
        pi, token = enrolled(before)
    previous = tokens.PreviousSecret(SECRET, NOW + 10 * DAY)
    with running(pool, bucket, secret=new, previous=previous) as server:
        server.clock.at += timedelta(seconds=1)
        pi.client = server.client
        renewed = pi.renew()

        assert is_let_in(server, token)
        assert is_let_in(server, renewed)
        assert jwt.decode(renewed, new, algorithms=["HS256"], options={"verify_exp": False, "verify_iat": False})
        server.clock.at += 10 * DAY
        assert not is_let_in(server, token)
        assert is_let_in(server, renewed)


def test_when_the_secret_was_changed_without_a_while_a_device_renews_by_its_key(
    pool: ConnectionPool, bucket: FolderBucket
) -> None:
    """As where a project's secret changes and takes every token with it."""
    with running(pool, bucket) as before:
        pi, token = enrolled(before)
    with running(pool, bucket, secret="the-next-secret-of-at-least-32-bytes") as server:
        server.clock.at += timedelta(seconds=1)
        pi.client = server.client

        assert not is_let_in(server, token)
        assert is_let_in(server, pi.renew())


def test_no_secret_is_told_or_logged_whatever_is_asked(server: Endpoints) -> None:
    """Neither a code, a key, a nonce, an assertion nor a token; only the one that was asked for, to who may have it."""
    code = code_for(server)
    pi = Pi(server.client)
    assertion, nonce = pi.sign(pi.public_key), pi.nonce()
    with capture_logs() as logs:
        answers = [
            pi.ask_to_enrol(guess(), assertion=assertion),
            pi.ask_to_enrol(code, device_id="pi-06"),
            pi.ask_to_renew("not.an.assertion"),
            pi.ask_to_renew(pi.sign("pi-05", nonce)),
        ]
        token = pi.enrol(code)
        with psycopg.connect(server.pool.conninfo) as connection:
            fleet.revoke(connection, "pi-05", server.clock.at)
        answers.append(pi.ask_to_renew())
    told = str(logs) + "".join(answer.text for answer in answers)

    assert [answer.status_code for answer in answers] == [400, 400, 401, 401, 401]
    assert [secret for secret in (code, guess(), assertion, nonce.nonce, token, pi.public_key) if secret in told] == []
    assert {"device_enrolled", "enrolment_refused", "renewal_refused"} <= {log["event"] for log in logs}
    stored = str(server.rows("select * from scout_edge.tokens"))
    assert token not in stored
    assert token.rpartition(".")[2] not in stored


def test_a_key_of_no_use_is_refused(server: Endpoints) -> None:
    """Not 32 bytes, or another way to write them."""
    code = code_for(server)
    pi = Pi(server.client)
    for text in ("", "AAAA", pi.public_key + "=", pi.public_key[:-1], "é" * 43):
        answer = server.client.post(
            "/enrol", json={"code": code, "public_key": text, "assertion": pi.sign(pi.public_key)}
        )
        assert error_of(answer) == (400, "invalid_request")
    assert pi.ask_to_enrol(code).status_code == 200
