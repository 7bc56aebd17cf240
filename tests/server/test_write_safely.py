"""The safe write: old content or new, closed to others from the first byte, no remains."""

import stat
from pathlib import Path

import pytest

from server.files import write_safely


def test_the_new_content_replaces_the_old_with_its_mode(tmp_path: Path) -> None:
    """After the call the file holds exactly the new bytes and permissions, and nothing lies beside it."""
    path = tmp_path / "password"
    path.write_bytes(b"old and longer")
    path.chmod(0o644)

    write_safely(path, b"new", 0o600)

    assert path.read_bytes() == b"new"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [path]


def test_a_failed_write_leaves_the_old_content_and_nothing_else(tmp_path: Path) -> None:
    """When the new file cannot take the name, what was there stays and the temporary file goes."""
    (tmp_path / "taken").mkdir()

    with pytest.raises(IsADirectoryError):
        write_safely(tmp_path / "taken", b"new", 0o600)

    assert list(tmp_path.iterdir()) == [tmp_path / "taken"]
