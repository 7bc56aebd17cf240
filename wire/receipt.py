"""What the ingest endpoint answers, and how much of it an agent may believe.

May be relied on: `IngestAnswer.parse` accepts nothing but an answer in exactly this shape whose three counts
are whole and not negative, so that a captive portal's page or another service's success is no receipt.
"""

from dataclasses import dataclass

import msgspec


class NotAReceipt(ValueError):
    """This answer acknowledges nothing."""


@dataclass(frozen=True, slots=True)
class RejectedLine:
    """A line that was refused as data. The server holds it in quarantine: it counts as received."""

    line: int
    reason: str


@dataclass(frozen=True, slots=True)
class IngestAnswer:
    """`accepted` and `duplicates` and the rejected lines add up to the lines sent."""

    accepted: int
    duplicates: int
    rejected: tuple[RejectedLine, ...]
    sha256: str  # of the uncompressed body, hex

    @property
    def lines(self) -> int:
        """How many lines this answer speaks of."""
        return self.accepted + self.duplicates + len(self.rejected)

    def to_json(self) -> bytes:
        """The answer as the endpoint sends it."""
        return msgspec.json.encode(self)

    @classmethod
    def parse(cls, body: bytes) -> "IngestAnswer":
        """Read an answer; raise NotAReceipt when it has another shape."""
        try:
            answer = msgspec.json.decode(body, type=cls)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            raise NotAReceipt("the answer is not in the shape of an ingest answer") from None
        if min(answer.accepted, answer.duplicates) < 0:
            raise NotAReceipt("the answer's counts are negative")
        return answer
