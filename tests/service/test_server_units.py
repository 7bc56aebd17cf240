"""scout-server's units as systemd's own checker sees them, without starting them."""

import subprocess
from pathlib import Path

import pytest

pytestmark = pytest.mark.analyze

UNITS = Path(__file__).resolve().parents[2] / "systemd"
HARDENING = UNITS / "scout-server.hardening.conf"
SERVICES = ("scout-server", "scout-load", "scout-sweep", "scout-etl", "scout-backup")
TIMERS = ("scout-load", "scout-sweep", "scout-etl", "scout-backup")
EXPOSURE_MAX = 1.3
"""Of 10, by systemd's own count. What remains is the network, and that one unit sees the processes of another."""


def _analyze(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["systemd-analyze", *map(str, arguments)], capture_output=True, text=True, check=False, timeout=60
    )


def _installed(folder: Path, name: str, change: tuple[str, str] = ("", "")) -> Path:
    """A unit beside its drop-in, as the package installs them, with a program that exists on any machine."""
    unit = folder / f"{name}.service"
    unit.write_text((UNITS / unit.name).read_text().replace("/usr/bin/scout-server", "/bin/true").replace(*change))
    drop_in = folder / f"{name}.service.d" / "hardening.conf"
    drop_in.parent.mkdir(exist_ok=True)
    drop_in.write_text(HARDENING.read_text().replace(*change))
    return unit


@pytest.mark.parametrize("name", SERVICES)
def test_a_unit_is_written_without_a_mistake(tmp_path: Path, name: str) -> None:
    """Unknown keys are only warnings to systemd, so it must say nothing at all; it would of a wrong one."""
    good = _analyze("verify", _installed(tmp_path, name))
    wrong = _analyze("verify", _installed(tmp_path, name, ("ProtectSystem", "ProtectsSystem")))

    assert (good.returncode, good.stdout, good.stderr) == (0, "", "")
    assert "ProtectsSystem" in wrong.stderr


@pytest.mark.parametrize("name", SERVICES)
def test_a_unit_is_exposed_as_little_as_a_networked_service_can_be(tmp_path: Path, name: str) -> None:
    """A threshold that a unit with one protection less misses."""
    threshold = f"--threshold={round(EXPOSURE_MAX * 10)}"
    ours = _analyze("security", "--offline=true", threshold, _installed(tmp_path, name))
    without = ("CapabilityBoundingSet=\n", "")
    weaker = _analyze("security", "--offline=true", threshold, _installed(tmp_path, name, without))

    assert ours.returncode == 0, ours.stdout
    assert weaker.returncode != 0


@pytest.mark.parametrize("name", TIMERS)
def test_a_timer_is_written_without_a_mistake(tmp_path: Path, name: str) -> None:
    """And starts the service of its name."""
    _installed(tmp_path, name)
    timer = tmp_path / f"{name}.timer"
    timer.write_text((UNITS / timer.name).read_text())
    said = _analyze("verify", timer)

    assert (said.returncode, said.stdout, said.stderr) == (0, "", "")


def test_every_unit_of_the_server_is_looked_at() -> None:
    """None is forgotten here that is added there."""
    of_the_agent = {"scout-agent", "scout-agent-provision"}

    assert {path.stem for path in UNITS.glob("*.service")} - of_the_agent == set(SERVICES)
    assert {path.stem for path in UNITS.glob("*.timer")} - of_the_agent == set(TIMERS)
