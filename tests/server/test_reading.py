"""What is taken from an object's bytes, and what is refused with which reason."""

import gzip
import hashlib
import json
import random
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from itertools import chain, islice, repeat

import pytest
import zstandard
from deliveries import DAY, DEVICE, EPOCH, batch, jsonl_of, name_of, record
from hypothesis import given
from hypothesis import strategies as st

from server.expanding import Unreadable, expand
from server.lines import HEAD_BYTES
from server.reading import (
    ARRAY_BYTES_MAX,
    LINE_BYTES_MAX,
    LINES_MAX,
    REFUSED_MAX,
    Delivery,
    Line,
    Refused,
    Whole,
    content_of,
    read_batch,
    read_foreign,
    read_object,
)
from wire.record import DEPTH_MAX, PAYLOAD_BYTES_MAX, to_line

FOLDER = f"{DAY}/{DEVICE}"
SALE = b'{"transaction_id":"t-1","peso_value":150.50}'
SALES = SALE + b"\n" + b'{"transaction_id":"t-2","peso_value":1}'


def zstd(data: bytes) -> bytes:
    """Compress as one frame."""
    return zstandard.ZstdCompressor().compress(data)


def read(file: str, stored: bytes) -> Delivery:
    """Read an object in the device's folder."""
    return read_object(f"{FOLDER}/{file}", stored, bucket="scout-ingest", version="1")


def in_pieces(stored: bytes, sizes: Iterable[int]) -> Iterator[bytes]:
    """Cut what is stored into pieces of these sizes, the last of which repeats."""
    sizes, start, size = iter(sizes), 0, 1
    while start < len(stored):
        size = next(sizes, size)
        yield stored[start : start + size]
        start += size


def read_named(jsonl: bytes, first_seq: int, last_seq: int) -> Delivery:
    """Read a batch whose name fits its content's hash."""
    name = name_of(jsonl, first_seq, last_seq)
    return read_batch(jsonl, name, bucket="scout-ingest", key=name.key, version="1")


def nested(levels: int) -> bytes:
    """Make an object of so many levels."""
    return b'{"a":' * (levels - 1) + b"{}" + b"}" * (levels - 1)


def padded(size_bytes: int) -> bytes:
    """Make an object of so many bytes."""
    frame = b'{"transaction_id":"t-1","note":""}'
    return frame[:-2] + b"x" * (size_bytes - len(frame)) + frame[-2:]


ACCEPTED = {
    "jsonl": ("data.jsonl", SALES, [SALE, SALES.split(b"\n")[1]]),
    "one object": ("data.json", SALE, [SALE]),
    "an array": ("data.json", b"[" + SALES.replace(b"\n", b",\n") + b"]", SALES.split(b"\n")),
    "an object over several lines": ("data.json", b'{\n"a": 1\n}', [b'{ "a": 1 }']),
    "jsonl in a .json file": ("data.json", SALES, SALES.split(b"\n")),
    "gzip": ("data.jsonl.gz", gzip.compress(SALES), SALES.split(b"\n")),
    "gzip in two members": ("data.jsonl.gz", gzip.compress(SALE + b"\n") + gzip.compress(SALE), [SALE, SALE]),
    "zstd": ("data.json.zst", zstd(SALES), SALES.split(b"\n")),
    "zstd in two frames": ("data.jsonl.zst", zstd(SALE + b"\n") + zstd(SALE), [SALE, SALE]),
    "a bare .gz": ("data.gz", gzip.compress(b"[" + SALE + b"]"), [SALE]),
    "capital endings": ("DATA.JSONL.GZ", gzip.compress(SALE), [SALE]),
    "a byte order mark": ("data.jsonl", b"\xef\xbb\xbf" + SALES, SALES.split(b"\n")),
    "CRLF": ("data.jsonl", SALES.replace(b"\n", b"\r\n") + b"\r\n", SALES.split(b"\n")),
    "blank lines": ("data.jsonl", b"\n\n" + SALE + b"\n \n", [SALE]),
    "an empty file": ("data.jsonl", b"", []),
    "an empty gzip": ("data.jsonl.gz", gzip.compress(b""), []),
    "an empty zstd": ("data.jsonl.zst", zstd(b""), []),
    "an empty array": ("data.json", b"[]", []),
    "duplicate keys": ("data.jsonl", b'{"a":1,"a":2}', [b'{"a":1,"a":2}']),
    "a NUL escape": ("data.jsonl", rb'{"a":"\u0000"}', [rb'{"a":"\u0000"}']),
    "the deepest": ("data.jsonl", nested(DEPTH_MAX), [nested(DEPTH_MAX)]),
    "the longest": ("data.jsonl", padded(PAYLOAD_BYTES_MAX), [padded(PAYLOAD_BYTES_MAX)]),
}
REFUSED_LINES = {
    "broken JSON": (b'{"a":1', "not valid JSON"),
    "NaN": (b'{"a":NaN}', "not valid JSON"),
    "invalid UTF-8": (b'{"a":"\xff"}', "not valid JSON"),
    "a lone surrogate": (rb'{"a":"\ud800"}', "not valid JSON"),
    "too deep": (nested(DEPTH_MAX + 1), "nested deeper than 128 levels"),
    "far too deep": (nested(5000), "not valid JSON"),
    "over 1 MiB": (padded(PAYLOAD_BYTES_MAX + 1), "longer than 1048576 bytes"),
    "no object": (b"[1,2]", "not a JSON object"),
    "a bare NUL": (b'{"a":"\0"}', "not valid JSON"),
}
FOREIGN_KEYS = {
    "2026-01-20/data.jsonl": "folder of a day and a device",
    "2026-01-20/pi-05/deeper/data.jsonl": "folder of a day and a device",
    "2026-13-20/pi-05/data.jsonl": "folder of a day and a device",
    "20260120/pi-05/data.jsonl": "folder of a day and a device",
    "incoming/pi-05/data.jsonl": "folder of a day and a device",
    "data.jsonl": "folder of a day and a device",
    "2026-01-20//data.jsonl": "names no device",
    "2026-01-20/../data.jsonl": "names no device",
    "2026-01-20/PI-05/data.jsonl": "names no device",
    "2026-01-20/0198c0de-0000-7000-8000-000000000000/data.jsonl": "must not be a UUID",
    "2026-01-20/pi-05/data.csv": "ends in none of",
    "2026-01-20/pi-05/jsonl": "ends in none of",
}


@pytest.mark.parametrize(("file", "stored", "payloads"), ACCEPTED.values(), ids=ACCEPTED)
def test_what_others_upload_is_taken_byte_for_byte(file: str, stored: bytes, payloads: list[bytes]) -> None:
    """Every accepted form gives its transactions' own text, under the device of its folder."""
    delivery = read(file, stored)

    assert [line.payload for line in delivery.lines] == payloads
    assert delivery.refused == ()
    assert delivery.device_id == DEVICE
    assert delivery.name is None


@pytest.mark.parametrize(("bad", "reason"), REFUSED_LINES.values(), ids=REFUSED_LINES)
def test_a_bad_line_is_refused_and_its_neighbours_are_taken(bad: bytes, reason: str) -> None:
    """The refusal names the line, says why, holds the bytes, and quotes nothing of them."""
    delivery = read("data.jsonl", SALE + b"\n" + bad + b"\n" + SALE)

    assert [line.line for line in delivery.lines] == [1, 3]
    (refused,) = delivery.refused
    assert (refused.line, refused.raw) == (2, bad)
    assert reason in refused.reason


@pytest.mark.parametrize(("bad", "reason"), REFUSED_LINES.values(), ids=REFUSED_LINES)
def test_a_bad_line_of_a_batch_is_refused_under_its_seq(bad: bytes, reason: str) -> None:
    """The hash proves that the line is the device's own, so its place is its seq."""
    lines = [to_line(record(seq)) for seq in (7, 8, 9)]
    lines[1] = lines[1].replace(record(8).payload, bad)

    delivery = read_named(b"\n".join(lines) + b"\n", 7, 9)
    assert [line.record.seq for line in delivery.lines if line.record] == [7, 9]
    (refused,) = delivery.refused
    assert (refused.line, refused.seq, refused.raw) == (2, 8, lines[1])
    assert reason in refused.reason or refused.reason == "not a JSON object"


def test_a_broken_document_is_one_refusal_that_holds_it() -> None:
    """A body that can't be divided is kept whole, with the line where it breaks."""
    body = b'[\n{"a":1},\n{"a":'
    delivery = read("data.json", body)

    assert delivery.lines == ()
    assert [(refused.line, refused.raw) for refused in delivery.refused] == [(3, body)]


def test_a_batch_gives_its_records() -> None:
    """A batch is read by its name, from its compressed form."""
    name, jsonl = batch(range(1, 4))
    delivery = read_object(name.key, gzip.compress(jsonl), bucket="scout-ingest", version="1")

    assert [line.record for line in delivery.lines] == [record(1), record(2), record(3)]
    assert delivery.name == name
    assert delivery.sha256 == hashlib.sha256(jsonl).hexdigest()
    assert delivery.bytes == len(jsonl)


def test_a_copy_that_was_asked_for_is_the_same_batch() -> None:
    """The suffix of a copy changes the key alone."""
    name, jsonl = batch(range(1, 4))
    delivery = read_object(name.again(2).key, gzip.compress(jsonl), bucket="scout-ingest", version="1")

    assert delivery.name == name.again(2)
    assert len(delivery.lines) == 3


def test_a_batch_with_another_hash_is_unreadable() -> None:
    """Other content under a batch's name covers nothing."""
    name, _ = batch(range(1, 4))
    _, other = batch(range(2, 5))

    with pytest.raises(Unreadable, match="not what its name says"):
        read_object(name.key, gzip.compress(other), bucket="scout-ingest", version="1")


@pytest.mark.parametrize(
    ("seqs", "first_seq", "last_seq", "reason"),
    [
        ((1, 2), 1, 3, "has 2 lines, and its name says 3"),
        ((1, 2, 3), 2, 4, "line 1 has seq 1, and its name says 2"),
        ((1, 3), 1, 2, "line 2 has seq 3, and its name says 2"),
    ],
)
def test_a_batch_with_another_run_is_unreadable(
    seqs: tuple[int, ...], first_seq: int, last_seq: int, reason: str
) -> None:
    """A name that claims seqs its content does not have would hide a gap."""
    with pytest.raises(Unreadable, match=reason):
        read_named(jsonl_of(record(seq) for seq in seqs), first_seq, last_seq)


def test_a_batch_whose_last_line_does_not_end_is_unreadable() -> None:
    """A batch is whole lines."""
    with pytest.raises(Unreadable, match="last line does not end"):
        read_named(to_line(record(1)), 1, 1)


@pytest.mark.parametrize("file", [f"{EPOCH}-000000000001-000000000002-00000000000000aa.jsonl.gz", "x" + EPOCH])
def test_what_calls_itself_a_batch_must_be_one(file: str) -> None:
    """A batch in the wrong folder, or with a malformed name, is not taken as somebody's upload."""
    file = f"{EPOCH}-1-2-00000000000000aa.jsonl.gz" if file.startswith("x") else f"deeper/{file}"

    with pytest.raises(Unreadable, match="called like a batch"):
        read(file, gzip.compress(SALE))


@pytest.mark.parametrize(("key", "reason"), FOREIGN_KEYS.items())
def test_an_object_that_is_nobodys_is_unreadable(key: str, reason: str) -> None:
    """The device comes from the folder: without one, nothing is taken."""
    with pytest.raises(Unreadable, match=reason):
        read_object(key, SALE, bucket="scout-ingest", version="1")


@pytest.mark.parametrize("encoding", ["gzip", "zstd"])
def test_compressed_data_is_whole_or_unreadable(encoding: str) -> None:
    """Cut anywhere, damaged, or followed by something else, it is refused."""
    whole = (
        gzip.compress(SALES * 50)
        if encoding == "gzip"
        else zstandard.ZstdCompressor(write_checksum=True).compress(SALES * 50)
    )
    assert expand(whole, encoding, 10_000) == SALES * 50

    for length in range(len(whole)):
        with pytest.raises(Unreadable, match="cut off"):
            expand(whole[:length], encoding, 10_000)
    with pytest.raises(Unreadable, match="damaged"):
        expand(whole + b"rest", encoding, 10_000)
    with pytest.raises(Unreadable, match=r"damaged|cut off"):
        expand(whole[:30] + bytes([whole[30] ^ 0xFF]) + whole[31:], encoding, 10_000)


@pytest.mark.parametrize("encoding", ["plain", "gzip", "zstd"])
def test_expanding_stops_at_its_limit(encoding: str) -> None:
    """At the limit it is taken, one byte more is refused."""
    pack = {"plain": bytes, "gzip": gzip.compress, "zstd": zstd}[encoding]

    assert len(expand(pack(b"0" * 1000), encoding, 1000)) == 1000
    with pytest.raises(Unreadable, match="1000 bytes"):
        expand(pack(b"0" * 1001), encoding, 1000)


BODIES = st.lists(
    st.sampled_from([SALE, b'{"a":1}', b"[1,2]", b"{", b"", b" \r", b"\xef\xbb\xbf", b"\xff", b"{\n}", b"[\n{}]"])
    | st.binary(max_size=20),
    max_size=6,
).map(b"\n".join)
ENDINGS: dict[str, Callable[[bytes], bytes]] = {"": bytes, ".gz": gzip.compress, ".zst": zstd}


@given(BODIES, st.sampled_from(["jsonl", "json"]), st.sampled_from(sorted(ENDINGS)), st.lists(st.integers(1, 30)))
def test_however_an_object_is_cut_the_same_comes_out(body: bytes, form: str, ending: str, sizes: list[int]) -> None:
    """As where the text is held whole: each line, each refusal, hash and size."""
    key = f"{FOLDER}/a.{form}{ending}"
    whole = read_foreign(body, lines_only=form == "jsonl", bucket="", key=key, version="", device_id=DEVICE)

    lines = list(content_of(key, in_pieces(ENDINGS[ending](body), sizes)).lines)
    assert [line for line in lines if isinstance(line, Line)] == list(whole.lines)
    assert [line for line in lines if isinstance(line, Refused)] == list(whole.refused)
    assert lines[-1] == Whole(whole.sha256, len(body))


@given(st.integers(1, 9), st.integers(1, 9), st.lists(st.integers(1, 200)))
def test_however_a_batch_is_cut_it_is_the_same(rows: int, named: int, sizes: list[int]) -> None:
    """And where it is not what its name says, the reason is."""
    _, jsonl = batch(range(1, rows + 1))
    name = name_of(jsonl, 1, named)
    stored = gzip.compress(jsonl)

    def lines_or_reason(pieces: Iterable[bytes]) -> list[Line | Refused | Whole] | str:
        try:
            return list(content_of(name.key, pieces).lines)
        except Unreadable as problem:
            return str(problem)

    found = lines_or_reason(in_pieces(stored, sizes))
    assert found == lines_or_reason([stored])
    assert isinstance(found, list) == (rows == named)


def test_of_a_batch_no_more_lines_are_given_than_its_name_says() -> None:
    """The rest is counted alone, and then none of it is taken."""
    _, jsonl = batch(range(1, 4))
    jsonl += b"\n" * 1000
    name = name_of(jsonl, 1, 3)
    lines = content_of(name.key, [gzip.compress(jsonl)]).lines

    assert [type(line) for line in islice(lines, 3)] == [Line] * 3
    with pytest.raises(Unreadable, match="has 1003 lines, and its name says 3"):
        next(lines)


def test_lines_come_before_the_end_is_known() -> None:
    """Of an object that never ends, too."""
    sales = (b'{"transaction_id":"t-%d"}\n' % number for number in range(10**9))
    lines = content_of(f"{FOLDER}/a.jsonl", sales).lines

    assert [line.line for line in (next(lines), next(lines)) if isinstance(line, Line)] == [1, 2]


@pytest.mark.parametrize("file", ["a.jsonl", "a.jsonl.gz"])
def test_an_object_of_line_feeds_is_given_up(file: str) -> None:
    """A few thousand bytes expand to so many that a loader would have nothing else to do."""
    feeds = b"\n" * (LINES_MAX + 1)
    stored = [gzip.compress(feeds, 1)] if file.endswith("gz") else [feeds]

    with pytest.raises(Unreadable, match="more than 10000000 lines"):
        list(content_of(f"{FOLDER}/{file}", stored).lines)


def test_an_object_with_too_many_bad_lines_is_held_as_one() -> None:
    """One more than are held line by line; a batch's too, and good ones don't count."""
    bad = b"x\n" * REFUSED_MAX
    batch_name = name_of(bad + b"x\n", 1, REFUSED_MAX + 1)
    few = list(content_of(f"{FOLDER}/a.jsonl", [bad, SALES]).lines)

    assert [sum(isinstance(line, kind) for line in few) for kind in (Refused, Line, Whole)] == [REFUSED_MAX, 2, 1]
    for key, stored in ((f"{FOLDER}/a.jsonl", [bad, b"x\n", SALE]), (batch_name.key, [gzip.compress(bad + b"x\n")])):
        with pytest.raises(Unreadable, match="more than 100000 of its lines"):
            list(content_of(key, stored).lines)


@pytest.mark.parametrize("file", ["a.jsonl", "a.json.gz"])
def test_an_object_that_never_ends_is_unreadable(file: str) -> None:
    """Reading stops at the limit, though nobody said how large it is; also where it expands to nothing."""
    # A gzip member of nothing but a comment in its head.
    member = b"\x1f\x8b\x08\x04" + bytes(5) + b"\xff\xff\xff" + bytes(65535) + b"\x03\x00" + bytes(8)
    endless = repeat(member if file.endswith("gz") else b" " * 999_999 + b"\n")

    with pytest.raises(Unreadable, match="larger than"):
        list(content_of(f"{FOLDER}/{file}", endless).lines)


def test_of_an_overlong_line_the_beginning_is_held_and_its_neighbours_are_taken() -> None:
    """The reason says where the rest is; two lines with one beginning are two."""
    sales = [SALE, b"x" * (LINE_BYTES_MAX + 1), b"x" * (LINE_BYTES_MAX + 2), SALE]
    delivery = read("data.jsonl", b"\n".join(sales))

    assert [line.line for line in delivery.lines] == [1, 4]
    first, second = delivery.refused
    assert first.raw == second.raw == b"x" * HEAD_BYTES
    assert first.overlong == hashlib.sha256(sales[1]).digest() != second.overlong
    assert f"its object has all {LINE_BYTES_MAX + 1}" in first.reason


def test_an_overlong_line_of_a_posted_body_is_held_whole() -> None:
    """No object holds it."""
    bad = b"x" * (LINE_BYTES_MAX + 1)
    posts = [
        read_named(bad + b"\n", 1, 1),
        *(
            read_foreign(bad, lines_only=lines_only, bucket="", key="k", version="", device_id=DEVICE)
            for lines_only in (True, False)
        ),
    ]

    assert [post.refused[0].raw for post in posts] == [bad] * 3


def test_a_large_json_file_is_read_as_lines_where_it_is_lines() -> None:
    """Though it is not called so, and longer than a document may be."""
    sales = [b'{"n":%d,"note":"%s"}' % (number, b"x" * 500_000) for number in range(80)]
    text = b"\xef\xbb\xbf\n " + b"\n".join(sales)
    lines = content_of(f"{FOLDER}/data.json", in_pieces(text, [100_000])).lines

    assert len(text) > ARRAY_BYTES_MAX
    assert [line.payload for line in lines if isinstance(line, Line)] == sales


def test_an_array_is_taken_up_to_its_limit_and_beyond_it_is_unreadable() -> None:
    """With what to do about it."""
    element = b'{"note":"%s"},' % (b"x" * 500_000)
    count = ARRAY_BYTES_MAX // len(element)
    taken = b"[" + (element * count)[:-1] + b"]"
    refused = b"[" + element * (count + 1)

    assert len(read("data.json.gz", gzip.compress(taken, 1)).lines) == count
    with pytest.raises(Unreadable, match="write it as JSONL"):
        list(
            content_of(f"{FOLDER}/data.json", in_pieces(refused, [random.randrange(1, 10**6) for _ in range(9)])).lines
        )


@pytest.mark.parametrize("body", [b'{\n"a":"%s"}', b'{"a":"%s"\n}', b"%s"], ids=["open", "shut", "nothing"])
def test_a_long_text_that_is_neither_lines_nor_an_array_is_unreadable(body: bytes) -> None:
    """Before it is held: no transaction is that long."""
    endless = chain([body % (b"x" * LINE_BYTES_MAX)], repeat(b"x" * 1_000_000))

    with pytest.raises(Unreadable, match="neither JSONL nor a JSON array"):
        list(content_of(f"{FOLDER}/data.json", endless).lines)


def test_a_transaction_with_an_id_is_the_same_in_every_file() -> None:
    """Its identity is its id and its text, wherever it stands."""
    first = read("a.jsonl", SALE).lines[0]
    second = read("b.json", b"[\n\n" + SALE + b"]").lines[0]

    assert first.identity == second.identity
    assert read("a.jsonl", SALE.replace(b"150.50", b"150.51")).lines[0].identity != first.identity


def test_a_transaction_without_an_id_is_the_one_at_its_place() -> None:
    """The same file again is the same; another place, file or text is another sale."""
    sale = b'{"peso_value":1}'
    identities = {
        read("a.jsonl", sale).lines[0].identity,
        read("b.jsonl", sale).lines[0].identity,
        read("a.jsonl", b'{"peso_value":2}').lines[0].identity,
        *(line.identity for line in read("a.json", b"[%s,%s]" % (sale, sale)).lines),
    }

    assert len(identities) == 5
    assert read("a.jsonl", sale).lines[0].identity in identities


@pytest.mark.parametrize("value", [b'""', b'" "', b"null", b"true", b"{}", b"[]"])
def test_an_unusable_transaction_id_is_none(value: bytes) -> None:
    """Then `id` counts, and without one the place."""
    named = read_foreign(
        b'{"transaction_id":%s,"id":17}' % value,
        lines_only=True, bucket="b", key="k", version="", device_id=DEVICE,
    )  # fmt: skip
    line = b'{"transaction_id":%s,"id":17}' % value

    assert named.lines[0].identity == hashlib.sha256(b"17\0" + line).digest()


@pytest.mark.parametrize(
    ("payload", "claimed"),
    [
        (b'{"device_id":"pi-99"}', "pi-99"),
        (b'{"device_id":"pi-05"}', None),
        (b'{"device_id":7}', None),
        (b'{"device_id":"pi-05","device_id":"pi-99"}', "pi-99"),
        (rb'{"\u0064evice_id":"pi-99"}', "pi-99"),
        (b'{"nested":{"device_id":"pi-99"}}', None),
        (rb'{"device_id":"pi\u0000"}', "pi\N{REPLACEMENT CHARACTER}"),  # PostgreSQL's texts have no NUL
    ],
)
def test_a_payload_that_names_another_device_is_flagged(payload: bytes, claimed: str | None) -> None:
    """The folder decides whose it is; what the payload claims is kept beside it, in both forms."""
    batch_line = read_named(jsonl_of([record(1, payload)]), 1, 1).lines[0]
    foreign_line = read("data.jsonl", payload).lines[0]

    assert batch_line.claimed_device_id == claimed
    assert foreign_line.claimed_device_id == claimed


@given(st.binary(max_size=300), st.sampled_from(["a.jsonl", "a.json", "a.gz", "a.zst", "a.json.gz", "a"]))
def test_whatever_the_bytes_nothing_else_is_raised(stored: bytes, file: str) -> None:
    """Any object is a delivery or unreadable, and each of its lines is a line or refused."""
    with suppress(Unreadable):
        delivery = read(file, stored)
        assert all(line.identity for line in delivery.lines)


@given(st.lists(st.binary(max_size=40).filter(lambda line: b"\n" not in line), min_size=1, max_size=5))
def test_whatever_a_batch_holds_every_seq_is_accounted_for(lines: list[bytes]) -> None:
    """With the right hash and count, each line is held one way or the other."""
    delivery = read_named(b"".join(line + b"\n" for line in lines), 1, len(lines))

    assert sorted(refused.seq for refused in delivery.refused if refused.seq) == list(range(1, len(lines) + 1))


@given(
    st.dictionaries(
        st.text(max_size=8), st.integers() | st.text(max_size=8) | st.floats(allow_nan=False, allow_infinity=False)
    )
)
def test_json_written_by_anybody_is_taken(sale: dict[str, object]) -> None:
    """Whatever a JSON library writes of an object comes back byte for byte, in every form."""
    text = json.dumps(sale).encode()

    assert [line.payload for line in read("a.jsonl", text).lines] == [text]
    assert [line.payload for line in read("a.json", b"[" + text + b"]").lines] == [text]
