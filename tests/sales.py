"""Made Scout sales, in the shape the tills write: the same count and seed always give the same bytes.

Every value of every enum appears, any optional field may be null or missing, and no required one ever is:
each sale is good, so each must reach the warehouse. Money is exact decimals and never a float.
"""

import json
import random
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

ENUMS = {
    "request_mode": ("verbal", "pointing", "indirect"),
    "request_type": ("branded", "unbranded", "point", "indirect"),
    "gender": ("male", "female", "unknown"),
    "age_bracket": ("18-24", "25-34", "35-44", "45-54", "55+", "unknown"),
    "payment_method": ("cash", "gcash", "maya", "credit", "other"),
    "customer_type": ("regular", "occasional", "new", "unknown"),
    "store_type": ("urban_high", "urban_medium", "residential", "rural", "transport", "other"),
    "economic_class": ("A", "B", "C", "D", "E", "unknown"),
    "status": ("sale", "void"),
}
SUBSTITUTION_REASONS = ("stockout", "suggestion", "unknown")
REQUIRED = ("transaction_id", "store_id", "timestamp", "peso_value")

MANILA = timezone(timedelta(hours=8))
OPENING = datetime(2025, 6, 1, tzinfo=MANILA)
OPENING_SPAN_S = 28 * 24 * 60 * 60  # four weeks, so that days, weeks and a month's end all have sales

# store_id: region, province, city, barangay, store_type
STORES = {
    "101": ("NCR", "Metro Manila", "Quezon City", "Commonwealth", "urban_high"),
    "102": ("NCR", "Metro Manila", "Quezon City", "Batasan Hills", "urban_medium"),
    "103": ("NCR", "Metro Manila", "Manila", "Tondo", "urban_high"),
    "104": ("NCR", "Metro Manila", "Parañaque", "Baclaran", "transport"),
    "201": ("Region VII", "Cebu", "Cebu City", "Lahug", "urban_medium"),
    "202": ("Region VII", "Cebu", "Mandaue City", "Subangdaku", "residential"),
    "203": ("Region VII", "Bohol", "Tagbilaran City", "Cogon", "other"),
    "301": ("Region XI", "Davao del Sur", "Davao City", "Talomo", "residential"),
    "302": ("Region XI", "Davao del Norte", "Tagum City", "Apokon", "rural"),
    "303": ("Region XI", "Davao del Norte", "Panabo City", "Gredu", "rural"),
}
# sku, product_name, product_category, brand_name, price for one
PRODUCTS = (
    ("4800001", "Soda 290 ml", "beverages", "Lakan", "18.00"),
    ("4800002", "Café Puro 3-in-1", "beverages", "Puro", "9.50"),
    ("4800003", "Polvorón de Niño", "snacks", "Señorita", "7.25"),
    ("4800004", 'Candle 7" white', "household", "Tala", "12.75"),
    ("4800005", "Buko pie 🥥", "bakery", "Laguna", "150.50"),
    ("4800006", "Shampoo sachet", "personal care", "Ganda", "6.00"),
    ("4800007", "Menthol 20s", "tobacco", "Bukid", "165.00"),
    ("4800008", "Load 50", "prepaid load", "Kuwerdas", "53.00"),
)
RICE = ("4800009", "Rice, loose", "staples", "Ani", "52.3475")  # by the kilo, and priced below the centavo


def sales(count: int, seed: int) -> Iterator[bytes]:
    """Yield each sale as the JSON text its till wrote, on one line and without a line end."""
    chance = random.Random(seed)
    for number in range(1, count + 1):
        # Two makes of till differ in spaces and escapes, so that text written anew is noticed.
        old_till = chance.random() < 0.3
        sale = _sale(chance, f"scout-{seed}-{number}", old_till=old_till)
        yield _json_text(sale, old_till=old_till).encode()


def peso_sum(sales: Iterable[bytes]) -> Decimal:
    """Add up `peso_value` to the centavo, voids included."""
    return sum((json.loads(sale, parse_float=Decimal)["peso_value"] for sale in sales), Decimal("0.00"))


def _sale(chance: random.Random, transaction_id: str, *, old_till: bool) -> dict[str, Any]:
    store_id = chance.choice(list(STORES))
    *location, store_type = STORES[store_id]
    items = [_item(chance) for _ in range(chance.randint(1, 6))]
    first = items[0]
    sold_at = OPENING + timedelta(seconds=chance.randrange(OPENING_SPAN_S))
    sale = {
        "transaction_id": transaction_id,
        "store_id": store_id,
        "device_id": f"pi-{store_id}",
        "timestamp": sold_at.isoformat() if old_till else f"{sold_at.astimezone(UTC):%Y-%m-%dT%H:%M:%S.250Z}",
        "location": dict(zip(("region", "province", "city", "barangay"), location, strict=True)),
        "product_category": first["product_category"],
        "brand_name": first["brand_name"],
        "sku": first["sku"],
        # Goods sold by weight count as one unit.
        "units_per_transaction": sum(one["qty"] if isinstance(one["qty"], int) else 1 for one in items),
        "peso_value": sum(one["total_price"] for one in items),
        "basket_size": len(items),
        "combo_basket": [{"sku": one["sku"], "quantity": 1} for one in items[:2]],
        "items": items,
        "suggestion_accepted": chance.random() < 0.4,
        "substitution_event": _substitution(chance, first["sku"]),
        "duration_seconds": chance.randint(0, 300),
        "campaign_influenced": chance.random() < 0.2,
        "handshake_score": Decimal(chance.choice(("0", "0.5", "0.50", "0.87", "1", "1.00"))),
        "is_tbwa_client": chance.random() < 0.3,
        "customer_id": f"customer-{chance.randint(1, 400)}",
        **{name: chance.choice(values) for name, values in ENUMS.items()},
        "store_type": store_type,
        "status": "void" if chance.random() < 0.03 else "sale",
    }
    return dict(_with_holes(chance, sale))


def _with_holes(chance: random.Random, sale: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Leave out some of the optional fields, and make some null."""
    for name, value in sale.items():
        fate = chance.random()
        if name in REQUIRED or fate < 0.85:
            yield name, value
        elif fate < 0.93:
            yield name, None


def _item(chance: random.Random) -> dict[str, Any]:
    """Make one item. One in fifty is a gift, because a sale of 0.00 is a sale too."""
    weighed = chance.random() < 0.1
    sku, product_name, product_category, brand_name, price = RICE if weighed else chance.choice(PRODUCTS)
    qty = Decimal(chance.randint(1, 40)) / 4 if weighed else chance.randint(1, 5)
    unit_price = Decimal("0.00") if chance.random() < 0.02 else Decimal(price)
    return {
        "sku": sku,
        "product_name": product_name,
        "product_category": product_category,
        "brand_name": brand_name,
        "qty": qty,
        # Some tills write the same price as 150.50, some as 150.5000.
        "unit_price": unit_price.quantize(Decimal("0.0001")) if chance.random() < 0.5 else unit_price,
        "total_price": (unit_price * qty).quantize(Decimal("0.01")),
    }


def _substitution(chance: random.Random, sku: str) -> dict[str, Any]:
    if chance.random() < 0.8:
        return {"occurred": False}
    asked = chance.choice(PRODUCTS)[0]
    return {
        "occurred": True,
        "from_sku": asked,
        "to_sku": sku,
        "reason": chance.choice(SUBSTITUTION_REASONS),
    }


def _json_text(value: Any, *, old_till: bool) -> str:
    """Write JSON with each Decimal as it stands: the standard encoder would turn 150.50 into 150.5."""
    comma, colon = (", ", ": ") if old_till else (",", ":")
    if isinstance(value, Decimal):
        return f"{value:f}"
    if isinstance(value, dict):
        fields = (f'"{name}"{colon}{_json_text(part, old_till=old_till)}' for name, part in value.items())
        return "{" + comma.join(fields) + "}"
    if isinstance(value, list):
        return "[" + comma.join(_json_text(part, old_till=old_till) for part in value) + "]"
    return json.dumps(value, ensure_ascii=old_till)
