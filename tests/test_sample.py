"""The data the other tests and the demo rely on is what it says it is."""

import gzip
import hashlib
import json
import re
from collections.abc import Iterable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from sales import ENUMS, REQUIRED, STORES, SUBSTITUTION_REASONS, peso_sum, sales

SAMPLE = Path(__file__).parents[1] / "deploy" / "demo" / "sample"
SAMPLE_BYTES_MAX = 2_000_000  # a clone should not have to wait for it
EXPECTED = json.loads((SAMPLE / "expected.json").read_text(encoding="utf-8"))


def sample_text(store: str) -> bytes:
    """Return the store's file, uncompressed."""
    return gzip.decompress((SAMPLE / f"pi-{store}.jsonl.gz").read_bytes())


def parsed(lines: Iterable[bytes]) -> list[dict[str, Any]]:
    """Read each line as JSON, with exact decimals."""
    return [json.loads(line, parse_float=Decimal) for line in lines]


def totals(transactions: list[dict[str, Any]]) -> dict[str, int | str]:
    """Count and add up, in the words of expected.json."""
    items = [item for transaction in transactions for item in transaction["items"]]
    return {
        "transactions": len(transactions),
        "peso_value": str(sum(transaction["peso_value"] for transaction in transactions)),
        "items": len(items),
        "total_price": str(sum(item["total_price"] for item in items)),
    }


def test_the_sample_holds_exactly_the_expected_stores() -> None:
    """No file is missing and none is unaccounted for."""
    expected = {f"pi-{store}.jsonl.gz" for store in EXPECTED["stores"]}

    assert expected == {path.name for path in SAMPLE.glob("*.gz")}
    assert len(expected) == 3


@pytest.mark.parametrize("store", EXPECTED["stores"])
def test_each_store_has_the_expected_text_and_adds_up_to_the_cent(store: str) -> None:
    """The uncompressed bytes, the counts and the sums agree with expected.json."""
    text = sample_text(store)
    transactions = parsed(text.splitlines())

    assert transactions
    assert EXPECTED["stores"][store] == {**totals(transactions), "sha256": hashlib.sha256(text).hexdigest()}
    assert {store} == {transaction["store_id"] for transaction in transactions}
    assert {f"pi-{store}"} == {transaction["device_id"] for transaction in transactions}


def test_the_stores_together_add_up_to_the_expected_total() -> None:
    """5,001 different transactions, and their sums."""
    transactions = parsed(line for store in EXPECTED["stores"] for line in sample_text(store).splitlines())

    assert EXPECTED["total"] == totals(transactions)
    assert len({transaction["transaction_id"] for transaction in transactions}) == 5001


def test_each_sample_sale_is_worth_the_sum_of_its_items() -> None:
    """Money has two decimals in the text, and nothing unknown is written as null."""
    for store in EXPECTED["stores"]:
        text = sample_text(store)
        for transaction in parsed(text.splitlines()):
            assert transaction["peso_value"] == sum(item["total_price"] for item in transaction["items"])
            assert transaction["basket_size"] == len(transaction["items"]) > 0
        money = re.findall(rb'"(?:peso_value|total_price)":([^,}]+)', text)
        assert all(re.fullmatch(rb"\d+\.\d\d", amount) for amount in money)
        assert b":null" not in text


def test_the_sample_stays_small() -> None:
    """All files together are under 2 MB."""
    assert sum(path.stat().st_size for path in SAMPLE.iterdir()) < SAMPLE_BYTES_MAX


def test_the_same_seed_makes_the_same_bytes() -> None:
    """A shorter run is the beginning of a longer one, and another seed makes other sales."""
    assert list(sales(200, seed=7)) == list(sales(300, seed=7))[:200]
    assert not set(sales(200, seed=7)) & set(sales(200, seed=8))


def test_every_value_of_every_enum_appears_in_2000_sales() -> None:
    """So do ten stores in three regions."""
    made = parsed(sales(2000, seed=1))

    for name, values in ENUMS.items():
        assert {*values, None} == {sale.get(name) for sale in made}
    substitutions = [sale["substitution_event"] for sale in made if sale.get("substitution_event")]
    assert set(SUBSTITUTION_REASONS) == {one["reason"] for one in substitutions if one["occurred"]}
    assert set(STORES) == {sale["store_id"] for sale in made}
    assert len(STORES) == 10
    assert len({sale["location"]["region"] for sale in made if sale.get("location")}) == 3


def test_every_optional_field_is_sometimes_null_and_sometimes_missing() -> None:
    """A required one never is."""
    made = parsed(sales(2000, seed=1))

    for name in {name for sale in made for name in sale}:
        null = any(name in sale and sale[name] is None for sale in made)
        missing = any(name not in sale for sale in made)
        assert (null, missing) == ((False, False) if name in REQUIRED else (True, True)), name


def test_transaction_ids_are_unique() -> None:
    """They name the seed and count from 1."""
    ids = [sale["transaction_id"] for sale in parsed(sales(2000, seed=3))]

    assert [f"scout-3-{number}" for number in range(1, 2001)] == ids


def test_made_money_is_exact() -> None:
    """Peso values have two decimals in the text, trailing zeros included, and add up to the centavo."""
    made = list(sales(2000, seed=1))
    amounts = [re.search(rb'"peso_value": ?(\d+\.\d\d)[,}]', sale) for sale in made]

    assert all(amounts)
    assert any(amount and amount[1].endswith(b"0") for amount in amounts)
    assert any(amount and amount[1] == b"0.00" for amount in amounts)
    assert sum(Decimal(amount[1].decode()) for amount in amounts if amount) == peso_sum(made)
    assert peso_sum([]) == 0


def test_product_names_come_in_utf8_and_escaped() -> None:
    """The one name in two spellings, and one outside the basic plane as a surrogate pair."""
    text = b"\n".join(sales(2000, seed=1))

    assert "Café Puro".encode() in text
    assert b"Caf\\u00e9 Puro" in text
    assert b"Buko pie \\ud83e\\udd65" in text
    assert len(text.splitlines()) == 2000
