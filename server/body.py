"""A request's body, read with a limit: never more in memory than promised, never waited for without end.

May be relied on: what is returned is the whole body. A sender that leaves early raises ClientDisconnect,
and nothing of what it sent remains.
"""

import asyncio

from starlette.requests import Request

from server.errors import ServerError


class BodyTooLarge(ServerError):
    """This body is larger than what is taken here."""


class BodyStalled(ServerError):
    """The sender stopped in the middle of the body."""


async def read_body(request: Request, bytes_max: int, stall_s: float) -> bytes:
    """Read the body of at most `bytes_max`, waiting at most `stall_s` for each next piece of it.

    Raises BodyTooLarge, BodyStalled, and Starlette's ClientDisconnect.
    """
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared) > bytes_max:
        raise BodyTooLarge(f"the body is larger than {bytes_max} bytes.")
    body = bytearray()
    pieces = request.stream()
    while True:
        try:
            async with asyncio.timeout(stall_s):
                piece = await anext(pieces, None)
        except TimeoutError:
            raise BodyStalled(f"no more of the body came within {stall_s:.0f} s: send it again.") from None
        if piece is None:
            return bytes(body)
        body += piece
        if len(body) > bytes_max:
            raise BodyTooLarge(f"the body is larger than {bytes_max} bytes.")
