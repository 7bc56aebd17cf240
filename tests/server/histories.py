"""Made sales as a fleet of tills would tell them over months: the same count and seed always give the same records.

On top of `sales.sales`, whose bytes others rely on: three dialects, corrected and voided sales, sales without
items, time, store or value, items that don't add up, two devices in a store, one id from both of them, a store that
moved, a product renamed, stores in other zones, texts that nobody can read, and a few sales for the corners.
"""

import json
import random
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import psycopg
from landing import Landed, json_text
from sales import OPENING, PRODUCTS, sales

from server import tokens

ZONES = {"203": "Asia/Tokyo", "303": "Asia/Dubai"}
"""The stores whose clocks are not Manila's."""
SOURCES = {"pi-101-c": "pi-101", "pi-202-c": "pi-202-b"}
"""Devices that an operator may join to another: one till, so one id is one sale."""
STRETCH = 5
"""The four weeks of `sales` become twenty, so that weeks and months have one before, and customers stay away."""
LASTS = timedelta(days=28 * STRETCH)
NEWEST = OPENING + LASTS + timedelta(days=7, hours=12)
"""Noon of the newest day."""
TWO_DEVICES = ("101", "202", "301")
REGIONS_OF_OTHERS = {"NCR": "Metro Manila", "Region VII": "Central Visayas"}
UNREADABLE = ("{broken", "[1]", r'{"transaction_id":"t","note":"\u0000"}')
EPOCH = "00000000000000bb"

LEFT_OUT = object()

Sale = dict[str, Any]


def history(count: int, seed: int) -> list[Landed]:
    """Return the records of `count` sales, in the order in which they were taken."""
    chance = random.Random(f"history {seed}")
    records: list[Landed] = []
    for text in sales(count, seed):
        sale = json.loads(text, parse_float=Decimal)
        _happen(chance, sale)
        said = [_said(chance, sale)]
        if chance.random() < 0.03:
            said.append(_corrected(chance, sale))
        if chance.random() < 0.02:
            said.append(said[-1] | {"status": "void"})
        records += _taken(chance, sale, said)
    records += [_landed(_uuid(chance), sale) for sale in _corners()]
    return [replace(row, seq=seq) if row.epoch else row for seq, row in enumerate(records, start=1)]


def _corners() -> Iterator[Sale]:
    """Yield sales for what chance hardly makes.

    A dozen stores in a region, two of them with equal revenue; products, brands and categories that are worth the
    same and one that is worth less than nothing; customers last seen 30, 31, 90 and 91 days before the newest day;
    a combination with something nameless; a substitution for what nobody ever sold.
    """
    gifts = (
        ("gifts", "Alay", 0),
        ("gifts", "Bigay", 0),
        ("gifts", "Balik", -5),
        ("samples", "Tikim", 0),
        ("deposits", "Bote", 0),
    )
    for number, days_ago in enumerate((0, 1, 30, 31, 90, 91, 2, 3, 4, 5, 6, 7)):
        value = 100 - 5 * max(number, 1)
        lines = [("beverages", "Lakan", value + 5), *gifts]
        yield {
            "transaction_id": f"corner-{number}",
            "store_id": f"9{number:02}",
            "device_id": f"pi-9{number:02}",
            "timestamp": (NEWEST - timedelta(days=days_ago)).isoformat(),
            "location": {"region": "NCR", "city": "Makati"},
            "customer_id": f"corner-{number}",
            "peso_value": Decimal(value),
            "items": [
                {
                    "sku": f"49{place:05}",
                    "product_category": category,
                    "brand_name": brand,
                    "qty": 1,
                    "total_price": price,
                }
                for place, (category, brand, price) in enumerate(lines)
            ],
            "combo_basket": [{"sku": None, "quantity": 1}, {"sku": "4800001" if number % 2 else None, "quantity": 1}],
            "substitution_event": {"occurred": True, "from_sku": "4999999", "reason": "stockout"},
        }


def _landed(record_id: UUID, sale: Sale) -> Landed:
    at = datetime.fromisoformat(sale["timestamp"])
    return Landed(json_text(sale), device_id=sale["device_id"], epoch=EPOCH, seq=0, id=record_id, captured_at=at)


def _taken(chance: random.Random, sale: Sale, said: list[Sale]) -> Iterator[Landed]:
    """Yield the records of a sale's versions; some sales reach us by no intake, some from another device, too."""
    device_id = _device(chance, sale["store_id"])
    at = datetime.fromisoformat(sale["timestamp"])
    versions = [
        Landed(
            json_text(version),
            device_id=device_id,
            epoch=EPOCH,
            seq=0,
            id=_uuid(chance),
            captured_at=at + timedelta(minutes=1, days=days),
            claimed_device_id=_claimed(version, device_id),
        )
        for days, version in enumerate(said)
    ]
    fate = chance.random()
    if fate < 0.01:
        yield replace(versions[0], payload=chance.choice(UNREADABLE), claimed_device_id=None)
    elif fate < 0.03:
        foreign = said[0] if chance.random() < 0.5 else {n: v for n, v in said[0].items() if n != "timestamp"}
        yield replace(versions[0], payload=json_text(foreign), epoch=None, seq=None, captured_at=None)
    else:
        yield from versions
        if fate < 0.04 and sale["store_id"] in TWO_DEVICES:
            other = f"pi-{sale['store_id']}-c"
            claimed = _claimed(said[0], other)
            yield replace(versions[0], device_id=other, id=_uuid(chance), claimed_device_id=claimed)


def _claimed(said: Sale, device_id: str) -> str | None:
    """Return the device that the till names, where another one delivered."""
    return said["device_id"] if said.get("device_id") not in (None, device_id) else None


def _device(chance: random.Random, store_id: str) -> str:
    return f"pi-{store_id}-b" if store_id in TWO_DEVICES and chance.random() < 0.4 else f"pi-{store_id}"


def _happen(chance: random.Random, sale: Sale) -> None:
    """Spread the sale over the months, and let stores, products and customers change with them."""
    at = datetime.fromisoformat(sale["timestamp"])
    at = OPENING + STRETCH * (at - OPENING)
    sale["timestamp"] = at.isoformat()
    customer = str(sale.get("customer_id") or "")
    # The first forty stay away after a month, the next forty after three and a half.
    number = int(customer.removeprefix("customer-") or 0)
    if (0 < number <= 40 and at > OPENING + timedelta(days=30)) or (
        40 < number <= 80 and at > OPENING + timedelta(days=100)
    ):
        sale["customer_id"] = f"customer-{number + 200}"
    if sale["store_id"] == "203" and at > OPENING + LASTS / 2:
        sale["store_type"] = "transport"
        sale["location"] = {"region": "Region VII", "province": "Bohol", "city": "Panglao", "barangay": "Danao"}
    for item in sale.get("items") or []:
        if item["sku"] == "4800006" and at > OPENING + LASTS / 3:
            item["product_name"] = "Shampoo sachet, new"
    skus = chance.sample([sku for sku, *_ in PRODUCTS], chance.randint(1, 4))
    if sale.get("combo_basket"):
        sale["combo_basket"] = [{"sku": sku, "quantity": chance.randint(1, 3)} for sku in (*skus, skus[0])]


def _said(chance: random.Random, sale: Sale) -> Sale:
    """Return what the till says of the sale: in one of three dialects, and not always all of it."""
    said = {name: value for name, value in (sale | _flaw(chance, sale)).items() if value is not LEFT_OUT}
    dialect = chance.random()
    if dialect < 0.10:
        return _second_dialect(chance, said)
    if dialect < 0.15 and "timestamp" in said:
        return _third_dialect(said)
    return said


def _flaw(chance: random.Random, sale: Sale) -> Sale:
    """Return what the till leaves out, gets wrong or writes in an odd way; of most sales nothing."""
    value, at, (first, *others) = sale["peso_value"], sale["timestamp"], sale.get("items") or [{}]
    second = int(datetime.fromisoformat(at).timestamp())
    flaws = [
        *[{"items": LEFT_OUT}] * 3,
        *[{"peso_value": value + Decimal(off)} for off in ("-0.01", "0.05", "10.00")],
        {"peso_value": chance.choice((None, "unpriced"))},
        *[{"peso_value": written} for written in (str(value), f"₱{value:,.2f}")],
        {"store_id": None},
        # By the store's own clock; in seconds and milliseconds since 1970.
        *[{"timestamp": written} for written in (LEFT_OUT, at.removesuffix("+08:00"), second, str(second * 1000))],
        {"gender": "unasked", "units_per_transaction": "some"},
        {"items": [first | {"sku": None, "qty": "a few"}, *others] if first else None},
        {"items": [first | {"brand_name": None, "product_category": None}, *others] if first else None},
        {"items": None, "sku": "4800010", "brand_name": "Tala", "product_category": "household"},
        {"payment_method": "Card"},
    ]
    place = chance.randrange(100)
    return flaws[place] if place < len(flaws) else {}


def _second_dialect(chance: random.Random, sale: Sale) -> Sale:
    location = sale.get("location") or {}
    region = location.get("region")
    request = ("request_type", "request_mode", "payment_method", "gender", "age_bracket")
    brands = [brand for _, _, _, brand, _ in PRODUCTS]
    return {
        "transaction_id": sale["transaction_id"],
        "ts_utc": sale.get("timestamp"),
        "store": {"id": sale["store_id"], "tz_offset_min": 480},
        "geo": {
            "region_id": REGIONS_OF_OTHERS.get(region, region),
            "city_id": location.get("city"),
            "barangay_id": location.get("barangay"),
        },
        "request": {name: sale.get(name) for name in request},
        "suggestion": {"offered": chance.choice((True, False, None)), "accepted": sale.get("suggestion_accepted")},
        "substitution": {"asked_brand_id": chance.choice(brands), "final_brand_id": chance.choice((*brands, None))},
        "amounts": {"transaction_amount": sale["peso_value"]},
        "items": [
            {
                "category_name": item["product_category"],
                "unit": "pc",
                "detection_method": "voice",
                "confidence": Decimal("0.91"),
                **{name: item[name] for name in ("brand_name", "product_name", "qty", "unit_price", "total_price")},
            }
            for item in sale.get("items") or []
        ],
    }


def _third_dialect(sale: Sale) -> Sale:
    said = {name: value for name, value in sale.items() if name not in ("timestamp", "device_id")}
    return said | {"captured_at": sale["timestamp"]}


def _corrected(chance: random.Random, sale: Sale) -> Sale:
    """Return the sale as the till tells it again a day later: another amount, another time or other items."""
    fate = chance.random()
    if fate < 0.4:
        return sale | {"peso_value": sale["peso_value"] + 5}
    if fate < 0.7:
        moved = datetime.fromisoformat(sale["timestamp"]) + timedelta(hours=chance.choice((-20, 14)))
        return sale | {"timestamp": moved.isoformat()}
    return sale | {"items": (sale.get("items") or [])[:1], "payment_method": "maya"}


def _uuid(chance: random.Random) -> UUID:
    return UUID(int=chance.getrandbits(128), version=4)


def set_zones(connection: psycopg.Connection, zones: Mapping[str, str]) -> None:
    """Set by hand where the clocks of some stores stand, as an operator does, before or after their first sale."""
    for store_id, time_zone in zones.items():
        connection.execute(
            "insert into scout.dim_store (store_id, time_zone) values (%s, %s)"
            " on conflict (store_id) do update set time_zone = excluded.time_zone",
            (store_id, time_zone),
        )


def join_devices(connection: psycopg.Connection, sources: Mapping[str, str]) -> None:
    """Say of some devices whose sales they count, as an operator does before they deliver."""
    for device_id, source in sources.items():
        tokens.add_device(connection, device_id)
        connection.execute("update scout_edge.devices set source = %s where device_id = %s", (source, device_id))
