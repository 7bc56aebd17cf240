"""scout-agent.service as systemd's own checker sees it, without starting it."""

import subprocess
from pathlib import Path

import pytest
from installed import UNIT

pytestmark = pytest.mark.analyze

PROVISION = UNIT.with_name("scout-agent-provision.service")
EXPOSURE_MAX = 1.5
"""Of 10, by systemd's own count. What remains is the network, which is the agent's trade."""


def _analyze(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["systemd-analyze", *map(str, arguments)], capture_output=True, text=True, check=False, timeout=60
    )


def _unit(folder: Path, change: tuple[str, str] = ("", "")) -> Path:
    """The unit with a program that exists on any machine."""
    copy = folder / UNIT.name
    copy.write_text(UNIT.read_text().replace("/usr/bin/scout-agent", "/bin/true").replace(*change))
    return copy


def test_the_unit_is_written_without_a_mistake(tmp_path: Path) -> None:
    """Unknown keys are only warnings to systemd, so it must say nothing at all; it would of a wrong one."""
    good = _analyze("verify", _unit(tmp_path))
    wrong = _analyze("verify", _unit(tmp_path, ("WatchdogSec", "WatchDogSec")))

    assert (good.returncode, good.stdout, good.stderr) == (0, "", "")
    assert "WatchDogSec" in wrong.stderr


def test_the_unit_that_provisions_is_written_without_a_mistake(tmp_path: Path) -> None:
    """It runs as root for a minute of a device's life."""
    copy = tmp_path / PROVISION.name
    copy.write_text(PROVISION.read_text().replace("/usr/bin/scout-agent", "/bin/true"))
    checked = _analyze("verify", copy)
    exposed = _analyze("security", "--offline=true", "--threshold=26", copy)

    assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")
    assert exposed.returncode == 0, exposed.stdout


def test_the_unit_is_exposed_as_little_as_a_networked_service_can_be(tmp_path: Path) -> None:
    """A threshold that a unit with one protection less misses."""
    threshold = f"--threshold={round(EXPOSURE_MAX * 10)}"
    ours = _analyze("security", "--offline=true", threshold, _unit(tmp_path))
    weaker = _analyze("security", "--offline=true", threshold, _unit(tmp_path, ("CapabilityBoundingSet=\n", "")))

    assert ours.returncode == 0, ours.stdout
    assert weaker.returncode != 0
