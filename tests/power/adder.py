"""Calls `scout-agent add`'s own function for each line of numbers it is given, and says `stored` once it returned."""

import json
import random
import sys
from pathlib import Path

from agent_kit import sale
from lab_agent import take_over

from agent.adding import add_sales
from agent.clock import SystemClock
from agent.config import load


def main() -> None:
    """Until there is no more input, or the spool fails."""
    take_over()
    config, clock, rng = load(Path(sys.argv[1])), SystemClock(), random.SystemRandom()
    for line in sys.stdin:
        content = b"\n".join(sale(number) for number in json.loads(line))
        added = add_sales(config, content, lines_only=True, clock=clock, rng=rng)
        assert not added.refused
        print("stored", flush=True)


main()
