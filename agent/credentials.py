"""Whether this device may call: its token, and the pause after it was refused.

May be relied on: a refusal pauses for CREDENTIALS_PAUSE_S, so that nothing is asked more than once a minute;
another token in the file ends the pause at once. A token that has expired by a synchronised clock is not tried
on a batch before the server has taken it at a call home: a clock may be wrong, the server's word is not.
"""

from contextlib import suppress
from datetime import datetime
from pathlib import Path

from agent.clock import Clock
from agent.errors import CredentialsRefused
from agent.files import signature_of
from agent.token import Token, TokenFile

CREDENTIALS_PAUSE_S = 60.0


class Credentials:
    """The token file of one device, and what the server last said of what it holds."""

    def __init__(self, file: Path, device_id: str, clock: Clock) -> None:
        self._path = file
        self._file = TokenFile(file)
        self._device_id = device_id
        self._clock = clock
        self._paused_until_s = float("-inf")
        self._taken_though_over: str | None = None
        self.are_refused = False  # since the server refused this very token, or there was none
        self._look()

    def have_changed(self) -> bool:
        """Whether the file is another one than at the last look; if so, the pause is over.

        Reading the token meanwhile is no look.
        """
        if signature_of(self._path) == self._seen:
            return False
        self._look()
        self._paused_until_s = float("-inf")
        self.are_refused = False
        return True

    def token(self) -> Token:
        """The present token. Raises CredentialsRefused when there is none, or another device's."""
        token = self._file.read()
        if token.subject not in (None, self._device_id):
            raise CredentialsRefused(f"the token is {token.subject}'s, but this device is {self._device_id}")
        return token

    def have_expired(self) -> datetime | None:
        """When the token expired, so far as this device can tell; None while it is good."""
        try:
            token = self.token()
        except CredentialsRefused:
            return None  # said by whoever asks for the token
        if token.expires_at is None or token.text == self._taken_though_over or not self._clock.is_synced():
            return None
        return token.expires_at if token.expires_at <= self._clock.now() else None

    def accepted(self) -> None:
        """Note that the server took this token: if it seems to be over, this clock is wrong."""
        self.are_refused = False
        if self.have_expired():
            self._taken_though_over = self.token().text

    def refused(self) -> None:
        """Pause, until a minute is over or there is another token."""
        self._taken_though_over = None
        self.are_refused = True
        self._paused_until_s = self._clock.monotonic_s() + CREDENTIALS_PAUSE_S

    def are_paused(self) -> bool:
        """Whether a refusal is less than a minute old."""
        return self._clock.monotonic_s() < self._paused_until_s

    def _look(self) -> None:
        self._seen = signature_of(self._path)
        with suppress(CredentialsRefused):  # raised again for whoever wants to call
            self._file.read()
