"""The bucket: objects under keys like `2026-01-20/pi-05/data.jsonl`, whatever holds them (server/buckets/).

May be relied on, in every form:
- An object is seen whole or not at all, and is in the bucket for good when `put_new` returns.
- `put_new` never replaces an object that was there when it began. Only the folder also decides between two
  writers of one key at the same moment: across a network both may be told yes, and the bytes of one stay.
  The ledger is not deceived, as versions differ; and a batch is named after its content, so that its writers
  bring the same bytes. Who names objects otherwise gives each its own name.
- A key that passes `check_key` names a place inside the bucket; no other key is touched, read or listed, and
  an object of another name hides none of its neighbours.
- `version_of` changes whenever the content does, and is what `list` says of the same object.
- `open` gives all of an object or raises: what was cut on the way never looks whole. It holds little in memory,
  however large the object is; `get` holds what the caller allows.
"""

import re
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

import structlog

from server.errors import ServerError

KEY_BYTES_MAX = 1024
"""What an object store behind a bucket can hold."""

SEGMENT_BYTES_MAX = 255
"""What a file system can hold; the storage server fails on longer ones as well."""

PIECE_BYTES = 64 * 1024
"""Read at once of an object."""

_KEY = re.compile(r"[A-Za-z0-9_/!.*'() &$@=;:+,?-]+")

log = structlog.get_logger()


class InvalidKey(ServerError):
    """This text can't be an object's key."""


class ObjectExists(ServerError):
    """An object with this key is already there."""


class NoSuchObject(ServerError):
    """The bucket has no object with this key."""


class ObjectTooLarge(ServerError):
    """The object is larger than what may be read."""


class BucketFault(ServerError):
    """The bucket does not do what it is asked; the message says which of the two below."""


class BucketUnavailable(BucketFault):
    """The bucket does not answer, or says that it can't just now: it is asked again later."""


class BucketRefused(BucketFault):
    """The bucket refuses: it is not there, or a person must look at credentials and rights."""


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """An object as listed. `bytes` is its stored size; `version` differs whenever its content does."""

    key: str
    version: str
    bytes: int


class Bucket(Protocol):
    """What loader and endpoint need of a bucket. Each method may raise BucketFault, or OSError of a disk."""

    name: str

    def check(self) -> None:
        """Raise BucketFault unless the bucket is there and lets us in: one that is missing looks empty."""

    def put_new(self, key: str, body: bytes) -> None:
        """Store an object for good; raise ObjectExists or InvalidKey."""

    def open(self, key: str) -> AbstractContextManager[Iterator[bytes]]:
        """Give an object's bytes piece by piece; raise NoSuchObject or InvalidKey before the first.

        Also between two pieces BucketFault may be raised: then all of what came before is worth nothing.
        """

    def get(self, key: str, bytes_max: int) -> bytes:
        """Return an object's bytes; raise NoSuchObject, ObjectTooLarge or InvalidKey."""
        whole = bytearray()
        with self.open(key) as pieces:
            for piece in pieces:
                whole += piece
                if len(whole) > bytes_max:
                    raise ObjectTooLarge(f"it is larger than {bytes_max} bytes")
        return bytes(whole)

    def version_of(self, key: str) -> str | None:
        """Return an object's version, or None when there is no such object; raise InvalidKey."""

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """Yield the objects whose key begins with `prefix`, each once, in any order; pass over odd names."""


def check_key(key: str) -> None:
    """Raise InvalidKey, saying why, unless every form of bucket could hold an object of this key."""
    if not _KEY.fullmatch(key):
        raise InvalidKey("a key has letters, digits and _/!.*'() &$@=;:+,?- only, and is not empty")
    if len(key) > KEY_BYTES_MAX:
        raise InvalidKey(f"a key has at most {KEY_BYTES_MAX} bytes")
    for segment in key.split("/"):
        if segment in ("", ".", ".."):
            raise InvalidKey("a key has no empty, '.' or '..' part")
        if len(segment) > SEGMENT_BYTES_MAX:
            raise InvalidKey(f"a part of a key has at most {SEGMENT_BYTES_MAX} bytes")


def without_odd_names(listed: Iterable[ObjectInfo], bucket: str, prefix: str) -> Iterator[ObjectInfo]:
    """Yield what has a name that a key can have; how many have not is logged, since nobody else would see them."""
    skipped = 0
    for item in listed:
        try:
            check_key(item.key)
        except InvalidKey:
            # A name that ends in a slash is how consoles keep an empty folder.
            skipped += not item.key.endswith("/")
        else:
            yield item
    if skipped:
        log.warning("odd_names_skipped", bucket=bucket, prefix=prefix, count=skipped)
