"""When the token is renewed: long before it ends, and whenever it opens nothing though this device has a key.

May be relied on
- At most one try a minute, later each time while it fails; a new key is tried at once.
- A clock counts only while a time server sets it, and no longer once a token that was just issued seemed old by it.
- A renewal that changes nothing for the better is not repeated for AGAIN_AFTER_S: the server keeps a row for each.
"""

from collections.abc import Callable

from agent.clock import Clock
from agent.config import Config
from agent.credentials import Credentials
from agent.errors import CredentialsRefused, DeliveryFault, LocalFault, Wait
from agent.files import signature_of
from agent.pace import Pace

TRY_AGAIN_S = 60.0
AGAIN_AFTER_S = 600.0


class Renewal:
    """Whether and when this device asks for its next token."""

    def __init__(self, config: Config, credentials: Credentials, clock: Clock, renew: Callable[[Config], None]) -> None:
        self._config = config
        self._credentials = credentials
        self._clock = clock
        self._renew = renew
        self._pace = Pace(clock, max(TRY_AGAIN_S, config.upload.retry_wait_max_s))
        self._not_before_s = float("-inf")
        self._key = signature_of(config.device_key_file)
        self._is_asked = False
        self._is_clock_believed = True

    def ask(self) -> None:
        """The server wants another token here."""
        self._is_asked = True

    def is_due(self) -> bool:
        """Whether to try now."""
        key = signature_of(self._config.device_key_file)
        if key != self._key:
            self._key, self._not_before_s = key, float("-inf")
            self._pace.succeeded()
        if key is None or max(self._pace.ready_in_s(), self._not_before_s - self._clock.monotonic_s()) > 0.0:
            return False
        return self._credentials.are_refused or self._is_asked or self._is_half_over()

    def renew(self) -> None:
        """Try once. Raises DeliveryFault or LocalFault; whether it is due again then is `is_due`'s to say."""
        try:
            self._renew(self._config)
        except (DeliveryFault, LocalFault) as fault:
            asked_s = (fault.retry_after_s if isinstance(fault, Wait) else None) or 0.0
            refused_s = AGAIN_AFTER_S if isinstance(fault, CredentialsRefused) else 0.0
            self._pace.failed(max(TRY_AGAIN_S, asked_s, refused_s))
            raise
        self._pace.succeeded()
        self._not_before_s = self._clock.monotonic_s() + AGAIN_AFTER_S
        self._is_asked = False
        self._is_clock_believed = self._is_clock_believed and not self._is_half_over()

    def _is_half_over(self) -> bool:
        """Whether the token is in its last half, by a clock that can be believed."""
        if not (self._clock.is_synced() and self._is_clock_believed):
            return False
        try:
            half_over_at = self._credentials.token().half_over_at
        except CredentialsRefused:
            return False  # then it is refused, once somebody wanted to use it
        return half_over_at is not None and half_over_at <= self._clock.now()
