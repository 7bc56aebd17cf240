"""Files that must survive a power cut.

A rename or a new name is durable only once the folder that holds it was synced.
"""

import os


def sync_folder(folder: bytes) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_safely(path: bytes, content: bytes, mode: int = 0o640) -> None:
    """Write a file so that after a cut at any moment it is there whole, as before, or not at all.

    It gets exactly this mode, whatever the umask.
    """
    temporary = path + b".tmp"
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    with os.fdopen(descriptor, "wb") as file:
        os.fchmod(descriptor, mode)
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
    sync_folder(os.path.dirname(path) or b".")
