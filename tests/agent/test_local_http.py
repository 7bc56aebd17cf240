"""The local HTTP source as a client of the cloud meets it: what is answered, and what is in the spool then."""

import gzip
import hashlib
import json
import socket
import stat
import subprocess
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import httpx
import pytest
import zstandard
from agent_kit import sale, until
from doors import URL, RunningDoor, a_door, counts, last_answer, read_to_end, request, statuses, threads_of_clients
from fakes import FakeClock
from structlog.testing import capture_logs

from agent.counters import COMMITS, Counters
from agent.errors import LocalFault, SpoolFull, SpoolMalformed
from agent.sources.local_http.committer import Committer
from agent.sources.local_http.post import LINES_MAX, Post
from agent.spool import Spool
from wire.batch import BatchName
from wire.record import PAYLOAD_BYTES_MAX

SALE = b'{"store_id":"102","peso_value":150.50}'
JSONL = sale(1) + b"\n" + sale(2) + b"\n"
MARKER = "Maria Clara"


@pytest.fixture
def door(tmp_path: Path) -> Iterator[RunningDoor]:
    """Give a running local HTTP source."""
    with a_door(tmp_path) as running:
        yield running


@pytest.mark.parametrize("path", ["/ingest-transaction", "/functions/v1/ingest-transaction"])
def test_a_sale_posted_as_to_the_cloud_is_in_the_spool_byte_for_byte(door: RunningDoor, path: str) -> None:
    """A client written for the cloud changes nothing but the address: token and device id are not looked at."""
    headers = {"Authorization": "Bearer x", "x-device-id": "pi-99", "Content-Type": "application/json"}
    response = httpx.post(door.base_url + path, content=SALE, headers=headers)

    assert counts(response) == (1, 0, 0)
    assert response.json()["sha256"] == hashlib.sha256(SALE).hexdigest()
    assert door.stored() == [SALE.decode()]
    assert door.tallied == [(1, 0)]


@pytest.mark.parametrize("content_type", ["application/json", "application/x-www-form-urlencoded"])
def test_an_object_over_several_lines_an_array_and_jsonl_are_told_apart(door: RunningDoor, content_type: str) -> None:
    """As on the server: curl's own content type says nothing."""
    bodies = [b'[{"a":1},{"a":2}]', b'{\n "a": 3\n}', b'{"a":4}\n{"a":5}\n', b""]
    answers = [counts(door.post(body, Content_Type=content_type)) for body in bodies]

    assert answers == [(2, 0, 0), (1, 0, 0), (2, 0, 0), (0, 0, 0)]
    assert [json.loads(payload)["a"] for payload in door.stored()] == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("content_type", ["application/jsonl", "application/x-ndjson; charset=utf-8"])
def test_a_bad_line_is_answered_with_its_reason_and_its_neighbours_are_stored(
    door: RunningDoor, content_type: str
) -> None:
    """The three counts add up to the lines sent; the till hears of the bad ones, which are stored nowhere."""
    body = b'{"a":1}\n{"customer":"%s"\n{"a":2}\n\xff\n' % MARKER.encode()
    response = door.post(body, Content_Type=content_type)

    assert counts(response) == (2, 0, 2)
    assert [line["line"] for line in response.json()["rejected"]] == [2, 4]
    assert all(line["reason"] for line in response.json()["rejected"])
    assert MARKER not in response.text
    assert door.stored() == ['{"a":1}', '{"a":2}']
    assert door.tallied == [(2, 2)]


@pytest.mark.parametrize(
    ("body", "line"),
    [(b'{"a":', 1), (b'[{"a":1},\n{"a":2}', 2), (b'{\n"a":\nNaN}', 3), (b'{"a":NaN}', 1), (b"\xff\xfe", 1)],
)
def test_a_body_that_is_no_transaction_at_all_is_refused_with_line_and_reason(
    door: RunningDoor, body: bytes, line: int
) -> None:
    """The same bodies and lines as on the server."""
    response = door.post(body, Content_Type="application/json")

    assert response.status_code == 400
    assert response.json()["line"] == line
    assert response.json()["reason"]
    assert "NaN" not in response.text
    assert door.stored() == []


@pytest.mark.parametrize("encoding", ["gzip", "x-gzip", None])
def test_a_gzip_body_is_taken_by_its_header_or_its_first_bytes(door: RunningDoor, encoding: str | None) -> None:
    """Two members in a row are one body; the hash is of what they expand to."""
    body = gzip.compress(sale(1) + b"\n") + gzip.compress(sale(2) + b"\n")
    response = door.post(body, **({"Content_Encoding": encoding} if encoding else {}))

    assert counts(response) == (2, 0, 0)
    assert response.json()["sha256"] == hashlib.sha256(JSONL).hexdigest()
    assert door.stored() == JSONL.decode().splitlines()


@pytest.mark.parametrize(
    ("body", "encoding", "status", "says"),
    [
        (gzip.compress(JSONL)[:-5], "gzip", 400, "cut off"),
        (gzip.compress(JSONL) + b"no gzip at all", "gzip", 400, "damaged"),
        (b"", "gzip", 400, "cut off"),
        (b"\x1f\x8bnothing", None, 400, "damaged"),
        (gzip.compress(b" " * 3_000_000), "gzip", 413, "in parts"),
        (zstandard.compress(JSONL), "zstd", 415, "gzip, or plain"),
        (zstandard.compress(JSONL), None, 415, "gzip, or plain"),
        (JSONL, "br", 415, "gzip"),
    ],
    ids=["cut", "tail", "empty", "bytes", "bomb", "zstd", "zstd by its bytes", "brotli"],
)
def test_what_cannot_be_expanded_is_refused_with_what_to_do(
    door: RunningDoor, body: bytes, encoding: str | None, status: int, says: str
) -> None:
    """Damaged, a bomb, or an encoding for which the device has no decoder."""
    response = door.post(body, **({"Content_Encoding": encoding} if encoding else {}))

    assert response.status_code == status
    assert says in response.json()["message"]
    assert door.stored() == []


def test_a_body_at_the_limit_is_taken_and_one_beyond_is_refused_however_its_length_is_said(tmp_path: Path) -> None:
    """Declared, in chunks, or by its number of lines."""
    with a_door(tmp_path, body_bytes_max=PAYLOAD_BYTES_MAX) as door:
        exact = door.post(SALE + b" " * (PAYLOAD_BYTES_MAX - len(SALE)))
        refused = [
            door.post(b"x" * (PAYLOAD_BYTES_MAX + 1)),
            door.post(iter([b"x" * 600_000] * 2)),
            door.post(b"\n" * (LINES_MAX + 1)),
            door.post(b"[" + b"1," * LINES_MAX + b"1]"),
        ]
        assert counts(exact) == (1, 0, 0)
        assert [response.status_code for response in refused] == [413] * 4
        assert all("parts" in response.json()["message"] for response in refused)
        assert door.stored() == [SALE.decode()]


def test_a_post_without_key_is_new_each_time_and_with_a_key_stored_once(door: RunningDoor) -> None:
    """The repeat is answered with the same lines, counted as duplicates: as the server does."""
    without = [counts(door.post(SALE)) for _ in range(2)]
    body = b'{"a":1}\nnonsense\n'
    with_key = [door.post(body, Idempotency_Key="till-7", Content_Type="application/jsonl") for _ in range(2)]

    assert without == [(1, 0, 0), (1, 0, 0)]
    assert [counts(response) for response in with_key] == [(1, 0, 1), (0, 1, 1)]
    assert with_key[0].json()["rejected"] == with_key[1].json()["rejected"]
    assert with_key[0].json()["sha256"] == with_key[1].json()["sha256"]
    assert door.stored() == [SALE.decode(), SALE.decode(), '{"a":1}']


def test_a_key_means_the_content_not_its_compression(door: RunningDoor) -> None:
    """A client that retries compressed is the same client."""
    answers = [door.post(body, Idempotency_Key="till-7") for body in (SALE, gzip.compress(SALE))]

    assert [counts(answer) for answer in answers] == [(1, 0, 0), (0, 1, 0)]


def test_the_same_key_with_another_body_is_refused_and_stores_nothing(door: RunningDoor) -> None:
    """Even when nothing of the first body was a sale."""
    assert counts(door.post(b"nonsense\n", Idempotency_Key="k", Content_Type="application/jsonl")) == (0, 0, 1)
    other = door.post(SALE, Idempotency_Key="k")

    assert other.status_code == 422
    assert "new key" in other.json()["message"]
    assert door.stored() == []


@pytest.mark.parametrize("key", ["", "x" * 256, "caf\xe9"])
def test_a_key_that_is_none_is_refused(door: RunningDoor, key: str) -> None:
    """The same keys as on the server."""
    response = httpx.post(door.base_url + URL, content=SALE, headers={"Idempotency-Key": key.encode("latin-1")})

    assert response.status_code == 400
    assert door.stored() == []


def test_an_agents_batch_is_refused(door: RunningDoor, clock: FakeClock) -> None:
    """An agent whose server address is its own would fill its spool with itself."""
    key = BatchName(clock.now().date(), "pi-05", "0" * 16, 1, 3, "0" * 16).key
    response = door.post(JSONL, Idempotency_Key=key)

    assert response.status_code == 422
    assert "server" in response.json()["message"]
    assert door.stored() == []


def test_keys_are_remembered_over_a_restart(tmp_path: Path) -> None:
    """They are in the spool, not in memory."""
    answers = []
    for _ in range(2):
        with a_door(tmp_path) as door:
            answers.append(counts(door.post(SALE, Idempotency_Key="till-7")))

    assert answers == [(1, 0, 0), (0, 1, 0)]


def test_old_keys_are_forgotten_by_number_and_by_age_but_never_by_a_clock_that_was_set(
    spool: Spool, clock: FakeClock
) -> None:
    """What was noted by a clock nobody had set is kept until it is one of too many."""
    committer = Committer(spool, Counters(), clock, keys_max=4, keys_between_forgetting=0)
    committer.start()

    def known_after(key: str) -> list[str]:
        """Post under a key; the posts that follow it wait until forgetting is done."""
        for post in (Post((SALE,), (), "hash", key), Post((), (), "", None)):
            committer.submit(post).result(20)
        return list(spool.posts())

    clock.synced = False
    clock.now_is(clock.now() - timedelta(days=20_000))
    assert known_after("unset") == ["unset"]
    clock.synced = True
    clock.now_is(clock.now() + timedelta(days=20_000))
    assert known_after("monday") == ["unset", "monday"]
    clock.pass_s(timedelta(days=8).total_seconds())
    assert known_after("next tuesday") == ["unset", "next tuesday"]
    assert [known_after(key) for key in ("a", "b")] == [["unset", "next tuesday", "a"], ["next tuesday", "a", "b"]]
    again = [committer.submit(Post((SALE,), (), "hash", key)).result(20).duplicates for key in ("b", "unset")]
    committer.close()

    assert again == [1, 0]


@pytest.mark.root
def test_on_a_full_disk_every_answered_sale_is_stored_and_later_posts_are_taken_again(tmp_path: Path) -> None:
    """What was refused is not there; once there is room the same post is taken, once."""
    mount = tmp_path / "card"
    mount.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=6m", "scout-test", str(mount)], check=True)
    try:
        ballast = mount / "ballast"
        ballast.write_bytes(b"x" * 4_000_000)
        with a_door(mount) as door, ThreadPoolExecutor(4) as threads:

            def post(number: int) -> httpx.Response:
                return door.post(sale(number, pad="x" * 5000), Idempotency_Key=f"till-{number}")

            answers = list(threads.map(post, range(400)))
            refused = [number for number, answer in enumerate(answers) if answer.status_code != 200]
            ballast.unlink()
            later = [counts(post(number)) for number in refused[:10]]
            stored = [json.loads(payload)["transaction_id"] for payload in door.stored()]

        assert {answers[number].status_code for number in refused} <= {503, 507}
        assert later == [(1, 0, 0)] * 10
        assert sorted(stored) == sorted(f"t-{n}" for n in range(400) if n not in refused[10:])
    finally:
        subprocess.run(["umount", str(mount)], check=True)


def test_concurrent_clients_share_commits_and_every_sale_is_stored(door: RunningDoor) -> None:
    """Eight clients at once need fewer syncs than posts, and no answer comes without its sale."""
    texts = [sale(number) for number in range(200)]
    with ThreadPoolExecutor(8) as threads, httpx.Client(base_url=door.base_url) as client:
        answers = list(threads.map(lambda text: client.post(URL, content=text), texts))

    assert [counts(answer) for answer in answers] == [(1, 0, 0)] * 200
    assert sorted(door.stored()) == sorted(text.decode() for text in texts)
    assert 0 < door.spool.commits < 200
    assert door.counters.read().counts[COMMITS, ()] == door.spool.commits


def test_posts_that_gather_behind_a_commit_are_one_commit(door: RunningDoor) -> None:
    """Eight posts that wait for a slow disk cost it one sync, not eight."""
    slow, gathered = threading.Event(), threading.Event()

    def wait(_payloads: object) -> None:
        slow.set()
        assert gathered.wait(20)

    door.spool.before = wait
    with ThreadPoolExecutor(9) as threads:
        first = threads.submit(door.post, sale(0))
        assert slow.wait(20)
        others = [threads.submit(door.post, sale(number)) for number in range(1, 9)]
        until(lambda: door.source._committer._queue.qsize() == 8, "the others wait")
        gathered.set()
        answers = [counts(future.result()) for future in [first, *others]]

    assert answers == [(1, 0, 0)] * 9
    assert door.spool.commits == 2
    assert len(door.stored()) == 9


def test_concurrent_posts_of_one_key_are_one_sale(door: RunningDoor) -> None:
    """Whether they meet in one commit or not."""
    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda _: counts(door.post(SALE, Idempotency_Key="till-7")), range(16)))

    assert sorted(answers) == [(0, 1, 0)] * 15 + [(1, 0, 0)]
    assert door.stored() == [SALE.decode()]


def test_nothing_is_answered_before_the_commit(door: RunningDoor) -> None:
    """While the spool is busy the client waits; other connections are served meanwhile."""
    reached, going = threading.Event(), threading.Event()

    def wait(payloads: object) -> None:
        if payloads:
            reached.set()
            assert going.wait(20)

    door.spool.before = wait
    with socket.create_connection(door.address, 20) as line:
        line.sendall(request(SALE, "Connection: close"))
        assert reached.wait(20)
        line.settimeout(0.3)
        with pytest.raises(TimeoutError):
            line.recv(1)
        assert door.get("/metrics").status_code == 200
        going.set()
        line.settimeout(20)
        assert statuses(read_to_end(line)) == [200]


@pytest.mark.parametrize(("fault", "status"), [(SpoolFull, 507), (LocalFault, 503)])
def test_when_the_spool_cannot_take_it_the_client_is_told_to_come_back(
    door: RunningDoor, fault: type[LocalFault], status: int
) -> None:
    """Nothing of the post is stored, and the same post is taken later."""

    def fail(_payloads: object) -> None:
        raise fault("the disk is in trouble.")

    door.spool.before = fail
    refused, health = door.post(SALE, Idempotency_Key="k"), door.get("/healthz")
    del door.spool.before
    taken = door.post(SALE, Idempotency_Key="k")

    assert (refused.status_code, health.status_code) == (status, status)
    assert int(refused.headers["Retry-After"]) > 0
    assert "the disk is in trouble." in refused.json()["message"]
    assert counts(taken) == (1, 0, 0)
    assert door.stored() == [SALE.decode()]


def test_a_post_too_large_for_a_full_spool_does_not_take_smaller_ones_with_it(door: RunningDoor) -> None:
    """What fails in a group is tried alone."""
    reached, going = threading.Event(), threading.Event()

    def full_for_many(payloads: list[bytes]) -> None:
        if payloads == [sale(0)]:
            reached.set()
            assert going.wait(20)
        if sale(1) in payloads:
            raise SpoolFull("no room for this.")

    door.spool.before = full_for_many
    with ThreadPoolExecutor(3) as threads:
        first = threads.submit(door.post, sale(0))
        assert reached.wait(20)
        others = [threads.submit(door.post, sale(number)) for number in (1, 2)]
        until(lambda: door.source._committer._queue.qsize() == 2, "they gather")
        going.set()
        answers = [future.result().status_code for future in [first, *others]]

    assert answers == [200, 507, 200]
    assert sorted(door.stored()) == [sale(0).decode(), sale(2).decode()]


def test_a_defect_is_answered_and_logged_without_a_word_of_the_sale(door: RunningDoor) -> None:
    """And the next post is served."""

    def fail(payloads: object) -> None:
        raise ValueError(payloads)

    door.spool.before = fail
    with capture_logs() as logs:
        broken = door.post(b'{"customer":"%s"}' % MARKER.encode())
    del door.spool.before

    assert broken.status_code == 500
    assert "request_failed" in [entry["event"] for entry in logs]
    assert MARKER not in broken.text + str(logs)
    assert counts(door.post(SALE)) == (1, 0, 0)


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 200),
        ("localhost:8710", 200),
        ("127.0.0.1:1", 200),
        ("127.8.9.1", 200),
        ("[::1]:8710", 200),
        ("evil.example.com", 403),
        ("127.0.0.1.evil.example.com", 403),
        ("localhost.evil.example.com", 403),
        ("user@localhost", 403),
        ("localhost/x", 403),
        ("192.168.1.5", 403),
        ("", 403),
    ],
)
def test_only_this_machines_own_names_are_served(door: RunningDoor, host: str, status: int) -> None:
    """A web page whose name was pointed at 127.0.0.1 says its own name in Host."""
    answer = door.raw(request(SALE, "Connection: close", host=host))

    assert last_answer(answer)[0] == status
    assert len(door.stored()) == (status == 200)


@pytest.mark.parametrize("origin", ["https://evil.example.com", "null", "http://127.0.0.1:8710"])
def test_web_pages_are_refused(door: RunningDoor, origin: str) -> None:
    """A browser says where a post comes from; a till doesn't."""
    response = door.post(SALE, Origin=origin)

    assert response.status_code == 403
    assert "web pages" in response.json()["message"]
    assert door.stored() == []


@pytest.mark.parametrize(
    ("method", "path", "status", "says"),
    [
        ("GET", URL, 405, "POST"),
        ("PUT", URL, 405, "POST"),
        ("POST", "/metrics", 405, "GET"),
        ("POST", "/", 404, URL),
        ("GET", "/ingest-transaction/", 404, URL),
        ("POST", "http://evil.example.com/ingest-transaction", 404, URL),
    ],
)
def test_other_paths_and_methods_are_told_what_to_do(
    door: RunningDoor, method: str, path: str, status: int, says: str
) -> None:
    """In JSON."""
    answer = door.raw(request(SALE, "Connection: close", method=method, path=path))

    assert last_answer(answer)[0] == status
    assert says in last_answer(answer)[1]["message"]
    assert status != 405 or f"Allow: {says}".encode() in answer
    assert door.stored() == []


def test_healthz_answers_200_while_sales_can_be_stored(door: RunningDoor) -> None:
    """It takes the way of a post without adding one."""
    assert (door.get("/healthz").status_code, door.get("/healthz").json()) == (200, {"status": "ok"})
    assert door.stored() == []
    assert door.spool.commits == 0


def test_refusals_are_logged_seldom_and_without_what_was_sent(door: RunningDoor) -> None:
    """One line for each status a minute, however often."""
    with capture_logs() as logs:
        for _ in range(20):
            door.post(SALE, Origin=f"https://{MARKER}".replace(" ", "-"))
        httpx.get(f"{door.base_url}/{MARKER}?token=secret")

    assert [(entry["event"], entry["status"]) for entry in logs] == [("request_refused", 403), ("request_refused", 404)]
    assert MARKER not in str(logs).replace("-", " ")
    assert "secret" not in str(logs)


def test_a_spool_that_is_found_damaged_by_a_post_reaches_the_daemon(door: RunningDoor) -> None:
    """Which begins anew, and salvages; nobody else might look where the post would have been stored."""

    def fail(_payloads: Sequence[bytes]) -> None:
        raise SpoolMalformed

    door.spool.before = fail
    answers = door.post(SALE), door.get("/healthz")

    assert [answer.status_code for answer in answers] == [503, 503]
    assert "nothing was stored: send it again" in answers[0].text
    with pytest.raises(SpoolMalformed):
        door.source.step()


def test_a_port_that_is_taken_is_said_plainly_and_taken_once_it_is_free(tmp_path: Path) -> None:
    """The daemon goes on; nobody has to restart it."""
    with socket.create_server(("127.0.0.1", 0)) as holder:
        taken = f"127.0.0.1:{holder.getsockname()[1]}"
        with a_door(tmp_path, listen=taken) as door:
            with pytest.raises(LocalFault, match=f"can't listen on {taken}: Address already in use") as raised:
                door.source.step()
            with pytest.raises(LocalFault):
                door.source.step()  # for as long as it is so: else it would seem to be over, and all to be well
            holder.close()
            until(lambda: door.source.addresses == [taken], "it listens")
            assert door.source.step() > 0
            assert counts(door.post(SALE)) == (1, 0, 0)
            assert "[local_http] listen" in str(raised.value)


def unix_client(path: Path) -> httpx.Client:
    """Return a client of a Unix socket."""
    return httpx.Client(transport=httpx.HTTPTransport(uds=str(path)), base_url="http://the-till", timeout=20)


def test_a_unix_socket_serves_its_group_and_is_removed_at_the_end(tmp_path: Path) -> None:
    """Under any Host name, for no web page can reach it; beside TCP or alone."""
    path = tmp_path / "ingest.sock"
    with a_door(tmp_path, listen="", socket=str(path)) as door, unix_client(path) as client:
        assert counts(client.post(URL, content=SALE)) == (1, 0, 0)
        assert stat.S_IMODE(path.stat().st_mode) == 0o660
        assert door.stored() == [SALE.decode()]
        assert sorted(entry.name for entry in tmp_path.iterdir() if "sock" in entry.name) == ["ingest.sock"]

    assert not path.exists()


def test_a_socket_left_by_a_killed_agent_is_replaced(tmp_path: Path) -> None:
    """Nobody has to delete a file."""
    path = tmp_path / "ingest.sock"
    for name in (path, path.with_name("ingest.sock.tmp")):
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(str(name))
    with a_door(tmp_path, listen="", socket=str(path)), unix_client(path) as client:
        assert counts(client.post(URL, content=SALE)) == (1, 0, 0)


def test_a_socket_on_which_somebody_listens_and_a_file_of_another_kind_are_left_alone(tmp_path: Path) -> None:
    """Both are said, and the socket is taken once it is free."""
    busy, file = tmp_path / "busy.sock", tmp_path / "file.sock"
    file.write_text("not yours")
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(busy))
        other.listen()
        with a_door(tmp_path, socket=str(busy)) as door:
            with pytest.raises(LocalFault, match="another program listens"):
                door.source.step()
            inode = busy.stat().st_ino
            other.close()
            until(lambda: len(door.source.addresses) == 2, "it listens")
            assert busy.stat().st_ino != inode
    with a_door(tmp_path, socket=str(file)) as door, pytest.raises(LocalFault, match="is not a socket"):
        door.source.step()

    assert file.read_text() == "not yours"


def test_a_socket_that_another_agent_put_in_our_place_survives_our_end(tmp_path: Path) -> None:
    """Whoever closes removes only what it made."""
    path = tmp_path / "ingest.sock"
    with a_door(tmp_path, listen="", socket=str(path)):
        path.unlink()
        path.touch()

    assert path.exists()


def test_close_answers_what_is_stored_and_lets_idle_clients_go(tmp_path: Path) -> None:
    """A post that came before the end is answered after its commit; one that comes later finds nobody."""
    reached, going = threading.Event(), threading.Event()

    def wait(_payloads: object) -> None:
        reached.set()
        assert going.wait(20)

    with a_door(tmp_path) as door:
        door.spool.before, address = wait, door.address
        with socket.create_connection(door.address, 20) as busy, socket.create_connection(door.address, 20) as idle:
            busy.sendall(request(SALE))
            assert reached.wait(20)
            # One that nobody took up yet would be reset.
            until(lambda: threads_of_clients()[0] == 2, "both are served")
            closing = threading.Thread(target=door.source.close)
            closing.start()
            try:
                assert read_to_end(idle) == b""
            finally:
                going.set()
            assert last_answer(read_to_end(busy))[0] == 200
            closing.join(20)
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(address, 20)
        assert door.stored() == [SALE.decode()]
