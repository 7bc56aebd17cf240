"""The checksum that a record carries in the spool: an accident on the card can't pass for a sale."""

from zlib import crc32


def line_checksum(epoch: str, line: bytes) -> int:
    """The checksum of a record's line within its epoch; the line holds its seq, so both are proved."""
    return crc32(line, crc32(epoch.encode()))
