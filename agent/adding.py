"""`scout-agent add`: sales into the spool by hand, beside a running daemon or without one.

May be relied on: all good sales of one call are stored in one commit, or none is.
"""

import random
from dataclasses import dataclass

from agent.clock import Clock
from agent.config import Config
from agent.space import space_of
from agent.spool import Spool
from wire.framing import RefusedBody, split_body, split_lines
from wire.record import RefusedPayload, parse_payload


@dataclass(frozen=True, slots=True)
class RefusedSale:
    """What was not stored, and why."""

    line: int
    reason: str


@dataclass(frozen=True, slots=True)
class Added:
    """What one call did."""

    rows: int
    refused: tuple[RefusedSale, ...]


def add_sales(config: Config, content: bytes, *, lines_only: bool, clock: Clock, rng: random.Random) -> Added:
    """Store the sales in `content`; raise ScoutAgentError when the spool can't take them.

    `lines_only`: it is JSONL, so that a bad line can't spoil the others, as in the folder.
    """
    payloads: list[bytes] = []
    refused: list[RefusedSale] = []
    try:
        for piece in split_lines(content) if lines_only else split_body(content):
            try:
                parse_payload(piece.text)
            except RefusedPayload as error:
                refused.append(RefusedSale(piece.line, str(error)))
            else:
                payloads.append(piece.text)
    except RefusedBody as error:
        refused.append(RefusedSale(error.line, error.reason))
    spool = Spool(config.spool_file, config.device.id, clock=clock, rng=rng, space=space_of(config))
    try:
        return Added(spool.append(payloads), tuple(refused))
    finally:
        spool.close()
