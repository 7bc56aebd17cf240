"""A technician's order to deliver now: what is here, past waits and quiet hours, once on each path.

May be relied on: an order ends, delivered or with the reason why not, and the board says which. What could not
be delivered stays where it is and is tried again as ever.
"""

from collections.abc import Callable

import structlog

from agent.board import Board, ReportedSend
from agent.orders import Orders, SendOrder
from agent.pace import Route
from agent.spool import Spool

log = structlog.get_logger()


class Sending:
    """The order that is being obeyed, if there is one."""

    def __init__(self, orders: Orders, spool: Spool, route: Route, board: Board) -> None:
        self._orders = orders
        self._spool = spool
        self._route = route
        self._board = board
        self._order: SendOrder | None = None
        self._newest = 0  # the last batch that the order is about
        self._paths_left: tuple[str, ...] = ()

    @property
    def is_on(self) -> bool:
        """Whether an order is being obeyed."""
        return self._order is not None

    def look(self, seal: Callable[[], object]) -> bool:
        """Begin what was ordered, sealing what is there; end what is delivered. True when one begins."""
        order = self._orders.take(SendOrder)
        begins = order is not None and order != self._order
        if begins:
            seal()
            self._order, self._newest, self._paths_left = order, self._spool.newest_waiting(), self._route.names
            self._route.hurry(self._route.active)
            log.info("send_ordered")
        if self.is_on:
            oldest = self._spool.next_waiting()
            if oldest is None or oldest.number > self._newest:
                self.end(None)
        return begins

    def failed(self, path: str) -> None:
        """Take the path that was not tried yet; without one, the order ends."""
        if not self.is_on:
            return
        self._paths_left = tuple(name for name in self._paths_left if name != path)
        if self._paths_left:
            self._route.hurry(self._paths_left[0])
            return
        fault = self._board.facts.last_fault
        self.end(f"{fault.message}: {fault.next_step}" if fault else "the server could not be asked")

    def end(self, problem: str | None) -> None:
        """Report on the order, if there is one; None: it was delivered."""
        if self._order is not None:
            self._board.note(last_send=ReportedSend(self._order.id, problem is None, problem or "delivered"))
            self._order = None
            self._orders.done(SendOrder)
