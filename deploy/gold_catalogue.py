"""Writes docs/gold.md: the catalogue of a database that was made from this checkout's models.

Run by `make gold-catalogue`. A test compares the page with the models, so that neither changes alone.
"""

import shutil
import tempfile
from pathlib import Path

import psycopg

from server.data_directory import DataDirectory
from server.embedded import EmbeddedPostgres
from server.gold import catalogue, markdown
from server.schema import migrate

PAGE = Path(__file__).resolve().parents[1] / "docs" / "gold.md"


def main() -> None:
    """Make a database, read its comments, and throw it away."""
    folder = Path(tempfile.mkdtemp(prefix="scout-gold-"))
    folder.chmod(0o711)  # PostgreSQL's account passes through
    try:
        with (
            DataDirectory(folder / "data") as data,
            EmbeddedPostgres(data) as postgres,
            psycopg.connect(postgres.dsn, autocommit=True) as connection,
        ):
            migrate(connection)
            PAGE.write_text(markdown(catalogue(connection)), encoding="utf-8")
    finally:
        shutil.rmtree(folder)
    print(f"wrote {PAGE}")


if __name__ == "__main__":
    main()
