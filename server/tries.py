"""How often somebody may be wrong: wrong enrolment codes by network address.

May be relied on: an address that was wrong `wrong_max` times within `window_s` is let try again only when the oldest of
those is `window_s` old, however many it makes at the same moment; and what is remembered stays bounded. It is each
process's own, and no more than a brake: that a code can't be guessed is owed to its 80 bits.
"""

from collections import OrderedDict, deque
from ipaddress import IPv6Address, ip_address

ADDRESSES_MAX = 10_000
_IPV6_PREFIX = 64
"""What one customer is given."""


class Tries:
    """Remembers who was wrong, and when. For one thread."""

    def __init__(self, wrong_max: int, window_s: float) -> None:
        self._wrong_max = wrong_max
        self._window_s = window_s
        self._tries: OrderedDict[str, deque[float]] = OrderedDict()

    def begin(self, address: str, now_s: float) -> float:
        """Count a try as a wrong one until it is taken back; or return the seconds to wait before it may be made."""
        block = _block_of(address)
        tries = self._tries.setdefault(block, deque(maxlen=self._wrong_max))
        self._tries.move_to_end(block)
        if len(self._tries) > ADDRESSES_MAX:
            self._tries.popitem(last=False)
        if len(tries) == self._wrong_max and tries[0] + self._window_s > now_s:
            return tries[0] + self._window_s - now_s
        tries.append(now_s)
        return 0.0

    def take_back(self, address: str) -> None:
        """The try that was counted last was no wrong one."""
        tries = self._tries.get(_block_of(address))
        if tries:
            tries.pop()


def _block_of(address: str) -> str:
    """Whom an address stands for."""
    try:
        parsed = ip_address(address)
    except ValueError:
        return address
    if not isinstance(parsed, IPv6Address):
        return str(parsed)
    return str(parsed.ipv4_mapped or f"{int(parsed) >> (128 - _IPV6_PREFIX):x}")
