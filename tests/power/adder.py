"""Calls `scout-agent add`'s own function for each line of numbers it is given, and says `stored` once it returned."""

import io
import json
import random
import sys
from contextlib import closing
from pathlib import Path

from agent_kit import sale
from lab_agent import take_over

from agent.adding import Tally, add_sales
from agent.clock import SystemClock
from agent.config import load
from agent.space import space_of
from agent.spool import Spool


def main() -> None:
    """Until there is no more input, or the spool fails."""
    take_over()
    config, clock, rng = load(Path(sys.argv[1])), SystemClock(), random.SystemRandom()
    for line in sys.stdin:
        numbers = json.loads(line)
        content, tally = io.BytesIO(b"\n".join(sale(number) for number in numbers)), Tally()
        spool = Spool(config.spool_file, config.device.id, clock=clock, rng=rng, space=space_of(config))
        with closing(spool):
            add_sales(
                spool,
                content,
                tally,
                lines_only=True,
                document_bytes_max=config.folder.file_bytes_max,
                told=lambda _sale: None,
                moved=lambda _bytes: None,
            )
        assert (tally.rows, tally.refused) == (len(numbers), 0)
        print("stored", flush=True)


main()
