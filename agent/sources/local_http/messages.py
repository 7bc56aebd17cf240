"""What passes between the rooms of the local HTTP source: a request's head, an answer, a refusal."""

from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus

import msgspec


@dataclass(frozen=True, slots=True)
class Head:
    """A request without its body. Header names are in small letters; repeated ones are joined by commas."""

    method: str
    path: str  # without the query
    version: str
    headers: Mapping[str, str]
    over_tcp: bool  # else over the Unix socket, which no web page reaches


@dataclass(frozen=True, slots=True)
class Answer:
    """What a client hears. `problem`: why it was refused, in the words that it was told."""

    status: int
    body: bytes
    content_type: str = "application/json"
    headers: tuple[tuple[str, str], ...] = ()
    problem: str = ""


class Refused(Exception):
    """This request is not served; the message says what to do. Nothing of it was stored.

    `details` are further fields of the answer.
    """

    def __init__(
        self, status: int, message: str, *, header: tuple[str, str] | None = None, **details: str | int
    ) -> None:
        super().__init__(message)
        self._status = status
        self._headers = (header,) if header else ()
        self._details = details

    @property
    def answer(self) -> Answer:
        """The refusal in the shape that the server's have."""
        word = HTTPStatus(self._status).phrase.lower().replace(" ", "_")
        body = {"error": word, "message": str(self)} | self._details
        return Answer(self._status, msgspec.json.encode(body), headers=self._headers, problem=str(self))
