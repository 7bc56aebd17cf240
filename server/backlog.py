"""The files of older devices: JSON or JSONL in a folder that is called like the device, and no agent's export.

    scoutpi-0002/2026/01/sale-17.json  ─▶  2026-01-20/scoutpi-0002/sale-17-5f2a…e1.json  in the bucket

Knows neither database nor bucket. May be relied on:
- The key follows from the device, the file's name and its content: the same file is the same object, from
  whichever folder, zip or copy of the backup it comes, and however often.
- What the till wrote is not changed. When it was taken is said by its own fields, else by the file.
"""

import hashlib
import re
from collections.abc import Container
from datetime import date
from pathlib import Path

import orjson

from server.reading import Delivery, read_object
from server.stick import Found, has_an_objects_place
from server.tree import File, Refused
from wire.device import device_id_problem
from wire.manifest import MANIFEST
from wire.record import format_instant

NO_DAY = "2000-01-01"
"""Folder of what doesn't say when it was sold."""

TIMES = ("timestamp", "captured_at", "ts")
"""Fields in which older devices say when, the first that is there; as `scout_bronze.move_to_production` reads them."""

_DAY = re.compile(r"20\d\d-\d\d-\d\d", re.ASCII)
_SUFFIXES = re.compile(r"\.(?:json|jsonl|ndjson)(?:\.gz|\.zst)?$", re.IGNORECASE)
_LIKE_A_DEVICE = re.compile(r"[a-z][a-z0-9-]*-\d+", re.ASCII)
_NOT_OF_A_KEY = re.compile(r"[^A-Za-z0-9_-]+")
_STEM_MAX = 80
_DIGITS = 16


def is_of_the_backlog(path: Path) -> bool:
    """Whether a file may hold an older device's sales, by its name and place."""
    return _SUFFIXES.search(path.name) is not None and path.name != MANIFEST and not has_an_objects_place(path)


def device_of(file: File, known: Container[str]) -> str:
    """The device in whose folder, or zip, a file lies: the nearest that is known, else the nearest called like one.

    Capital letters count as small ones. Above what was named, only a known one counts: folders of other purposes
    may be called alike. Raises Refused when there is none.
    """
    for name in names_around(file):
        if name in known:
            return name
    below = sum(folder.is_relative_to(file.root) for folder in file.path.parents)
    for name in names_around(file)[:below]:
        if _LIKE_A_DEVICE.fullmatch(name) and not device_id_problem(name):
            return name
    raise Refused("it lies in no device's folder: put it into one that is called like the device")


def names_around(file: File) -> list[str]:
    """What the folders and zips around a file are called, the nearest first, as a device would be."""
    return [folder.name.lower().removesuffix(".zip") for folder in file.path.parents]


def read(file: File, device_id: str) -> Found:
    """Read one file of this device. Raises Refused or Unreadable, saying why, and OSError."""
    content = file.content()
    captured_at = format_instant(file.modified_at)
    suffix = _suffix_of(file.path)
    # Read once to see on which day it was sold: the key that says so is not known before.
    delivery = read_object(f"{NO_DAY}/{device_id}/file{suffix}", content, bucket="", version="")
    digest = hashlib.sha256(content).hexdigest()[:_DIGITS]
    key = f"{_day_of(delivery)}/{device_id}/{_stem_of(file.path)}-{digest}{suffix}"
    return Found(key, content, delivery, captured_at)


def _day_of(delivery: Delivery) -> str:
    """The day that its first transaction with a time names, in the shop's own calendar."""
    for line in delivery.lines:
        transaction = orjson.loads(line.payload)
        for field in TIMES:
            said = transaction.get(field)
            day = said[:10] if isinstance(said, str) else ""
            if _DAY.fullmatch(day) and _is_real(day):
                return day
    return NO_DAY


def _is_real(day: str) -> bool:
    try:
        date.fromisoformat(day)
    except ValueError:
        return False
    return True


def _suffix_of(path: Path) -> str:
    found = _SUFFIXES.search(path.name)
    assert found, "is_of_the_backlog has seen it"
    return found[0].lower().replace(".ndjson", ".jsonl")


def _stem_of(path: Path) -> str:
    """The file's name without what a key can't hold, beginning with a letter or digit."""
    stem = _NOT_OF_A_KEY.sub("_", _SUFFIXES.sub("", path.name))[:_STEM_MAX]
    return stem if stem[:1].isalnum() else f"file{stem}"
