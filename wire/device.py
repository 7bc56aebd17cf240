"""What a device may be called: one rule for object keys, token subjects and URLs alike."""

import re
from uuid import UUID

DEVICE_ID_PATTERN = "[a-z0-9][a-z0-9-]{0,62}"

_DEVICE_ID = re.compile(DEVICE_ID_PATTERN)


def device_id_problem(device_id: str) -> str | None:
    """Say why `device_id` can't name a device, or None when it can.

    Small letters only, because bucket listings ignore case; no UUID, because Supabase's storage server
    treats a token whose subject is a UUID in another way.
    """
    if not _DEVICE_ID.fullmatch(device_id):
        return "a device id is 1 to 63 of a-z, 0-9 and '-', and begins with a letter or digit"
    try:
        UUID(device_id)
    except ValueError:
        return None
    return "a device id must not be a UUID"
