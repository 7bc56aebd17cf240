"""The demo itself: what a newcomer sees first must hold."""

import subprocess
import sys
from pathlib import Path

from likeness import unlike
from pages import pages

CHECKOUT = Path(__file__).resolve().parents[2]


def test_the_demo_ends_well_and_leaves_nothing_behind() -> None:
    """Exit status 0, every hop equal to the sample's committed total, no folder left."""
    ran = subprocess.run(
        [sys.executable, CHECKOUT / "deploy" / "demo" / "demo.py"], capture_output=True, text=True, check=False
    )

    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert ran.stdout.count("5,001") >= 7
    assert ran.stdout.count("167,438.16") >= 7
    assert not list(CHECKOUT.glob(".road-*"))
    (readme,) = (page for page in pages() if page.name == "README.md")
    (shown,) = (block.text for block in readme.blocks if "┃ hop" in block.text)
    printed = ran.stdout[ran.stdout.index("┏") :]
    assert not (said := unlike(f"…\n{shown}", printed)), f"the README shows it otherwise: {said}"
