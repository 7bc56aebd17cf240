"""Spools that were copied, or that lost their last writes: no sale is lost, and nobody is fooled by a receipt."""

import json
import shutil
from collections.abc import Callable, Sequence
from itertools import islice

from house import Server, Shop, stop, wait_for, wait_until_drained
from sales import sales


def _sell(shop: Shop, name: str, lines: Sequence[bytes]) -> None:
    shop.drop(f"{name}.jsonl", b"".join(line + b"\n" for line in lines), renamed=True)


def _ids(lines: Sequence[bytes]) -> list[str]:
    return [json.loads(line)["transaction_id"] for line in lines]


def _assert_receipts_are_for_own_bytes(server: Server, *shops: Shop) -> None:
    """Every settled batch of these spools is in the ledger under its own name with its own hash."""
    (ledger,) = server.row("settled_names")
    settled = [(key, sha256) for shop in shops for key, sha256, state, resend in shop.batches() if state == "settled"]
    assert settled
    assert {key: ledger.get(key) for key, _ in settled} == dict(settled)


def test_a_copied_spool_sold_on_from_two_places_keeps_every_sale_and_lists_the_forks(
    server: Server, open_shop: Callable[..., Shop]
) -> None:
    """Both copies issue the same seqs; bronze holds both records, and the forks are listed."""
    made = sales(900, seed=5)
    first, here, there = (list(islice(made, count)) for count in (300, 350, 250))
    original = open_shop("pi-05", "original")
    original.start()
    _sell(original, "first", first)
    wait_until_drained(server, [original], 60, lambda _open: None)
    stop([original.process])
    copy = open_shop("pi-05", "copy")
    shutil.copytree(original.spool, copy.spool, dirs_exist_ok=True)

    original.start()
    copy.start()
    _sell(original, "here", here)
    _sell(copy, "there", there)
    wait_until_drained(server, [original, copy], 60, lambda _open: None)

    transaction_ids, identities = server.row("transaction_ids")
    gaps, forks, _duplicates, _quarantined, _lag_s = server.row("counts")
    assert sorted(transaction_ids) == sorted(_ids([*first, *here, *there]))
    assert identities == 900
    assert forks == 250
    assert gaps == 0
    _assert_receipts_are_for_own_bytes(server, original, copy)


def test_a_spool_whose_last_writes_are_cut_off_after_an_upload_loses_no_sale(
    server: Server, open_shop: Callable[..., Shop]
) -> None:
    """The card forgot what it acknowledged; the seqs are issued again, and both records are in bronze."""
    made = sales(600, seed=6)
    kept, cut, later = (list(islice(made, 200)) for _ in range(3))
    shop = open_shop("pi-05")
    shop.start()
    _sell(shop, "kept", kept)
    wait_until_drained(server, [shop], 60, lambda _open: None)
    wal = shop.spool / "spool.db-wal"
    bytes_before = wal.stat().st_size
    _sell(shop, "cut", cut)
    wait_for(lambda: server.row("layers")[0] == 400, 60, lambda: "the second file did not arrive")
    shop.kill()
    assert wal.stat().st_size > bytes_before
    with wal.open("r+b") as frames:
        frames.truncate(bytes_before)

    shop.start()
    _sell(shop, "later", later)
    wait_until_drained(server, [shop], 60, lambda _open: None)

    transaction_ids, _identities = server.row("transaction_ids")
    gaps, forks, _duplicates, _quarantined, _lag_s = server.row("counts")
    assert sorted(transaction_ids) == sorted(_ids([*kept, *cut, *later]))
    assert forks == 200
    assert gaps == 0
    _assert_receipts_are_for_own_bytes(server, shop)
