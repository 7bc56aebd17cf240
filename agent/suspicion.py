"""Which batch goes next, and by which path, while the oldest one may be to blame for not being taken.

May be relied on: the oldest goes first. When its last try failed for a reason that may be its own, the one
behind it goes by the same path, once, as a witness: if that is taken, the way is good, and the oldest was
refused for itself, whatever the refusal looked like. If not, the oldest is tried again.
"""

from dataclasses import dataclass

from agent.pace import Route
from agent.spool import Batch, Spool


@dataclass(frozen=True, slots=True)
class Suspect:
    """A batch that was not taken on a path, for a reason that may be its own."""

    batch: Batch
    path: str
    reason: str


class Suspicion:
    """At most one batch is suspected."""

    def __init__(self, spool: Spool, route: Route) -> None:
        self._spool = spool
        self._route = route
        self._suspect: Suspect | None = None

    def falls_on(self, suspect: Suspect) -> None:
        """Let the batch behind this one be the witness."""
        self._suspect = suspect

    def end(self) -> None:
        """Suspect nothing."""
        self._suspect = None

    def next_batch(self) -> Batch | None:
        """The batch to try next; None when none waits."""
        oldest = self._spool.next_waiting()
        if oldest is not None and self._suspect is not None and self._suspect.batch.number == oldest.number:
            return self._spool.next_waiting(after=oldest.number) or oldest
        return oldest

    def path_for(self, batch: Batch) -> str:
        """The path for that try. A batch that was refused takes another one than the last time."""
        if self._suspect is not None and self._suspect.batch.number < batch.number:
            return self._suspect.path
        return self._route.choose(avoiding=batch.refused_by)

    def proved_by(self, taken: Batch, path: str) -> Suspect | None:
        """The batch that was refused for itself, now that this one was taken; the suspicion is over."""
        suspect, self._suspect = self._suspect, None
        is_witness = suspect is not None and suspect.batch.number < taken.number and suspect.path == path
        return suspect if is_witness else None
