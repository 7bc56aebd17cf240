"""A shop's machine as it is: set up offline and without a screen, with a wrong clock, a bad line, little memory."""

import json
from datetime import UTC, datetime
from pathlib import Path

import psycopg
import pytest
from agent_kit import until
from cards import Installed
from emulated import Guest, boot_partition_file, quoted, write_boot_partition
from house import Server
from pi import DEVICE, QUICK, address_of, arrived, enrolled, wait_until_arrived, wait_until_drained
from running_server import a_code

pytestmark = [pytest.mark.guest, pytest.mark.root, pytest.mark.timeout(1200)]

ENROLLED_S = 120.0
MEMORY_BYTES_MAX = 64 * 1024 * 1024
CLOCK_ERROR_S_MAX = 60.0
NAMES = [f"sale-{number}" for number in range(50)]
SALES = [json.dumps({"transaction_id": name, "store_id": "102", "peso_value": 150.5}) for name in NAMES]


def _resident_bytes(guest: Guest) -> int:
    said = guest.run("grep VmRSS /proc/$(systemctl show --property MainPID --value scout-agent)/status")
    return int(said.text.split()[1]) * 1024


def test_it_is_installed_without_a_network_and_waits_to_be_enrolled(
    installed: Installed, guest: Guest, capsys: pytest.CaptureFixture[str]
) -> None:
    """There is no index, so apt could have got nothing from elsewhere; nothing failed, and nothing runs yet."""
    with capsys.disabled():
        print(f"\n{installed.suite}: booted in {installed.boot_s:.0f} s, installed in {installed.install_s:.0f} s")
    guest.power_on()

    assert guest.run("ls /var/lib/apt/lists | grep -c Packages", check=False).text == "0"
    assert guest.run("systemctl is-system-running").text == "running"
    assert guest.run("systemctl is-enabled scout-agent").text == "enabled"
    assert guest.run("systemctl is-active scout-agent", check=False).text == "inactive"


def test_a_wrong_clock_a_lossy_line_and_little_memory_keep_nothing_back(
    installed: Installed, guest: Guest, server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    """Enrolled and delivered while the clock is years behind, a packet in five is lost; silver has the true time."""
    guest.power_on()
    guest.run("date --set 2019-01-01")
    guest.run("tc qdisc add dev eth0 root netem loss 20% delay 50ms")
    enrolled(guest, server)
    guest.run(f"systemctl set-property --runtime scout-agent MemoryMax={MEMORY_BYTES_MAX}")
    idle = _resident_bytes(guest)
    _drop(guest)
    wait_until_arrived(guest, server, set(NAMES))
    wait_until_drained(guest)
    clock = datetime.fromtimestamp(int(guest.run("date +%s").text), UTC)
    restarts = guest.run("systemctl show --property NRestarts --value scout-agent").text
    with capsys.disabled():
        print(
            f"\n{installed.suite}: {idle / 1e6:.1f} MB resident at first, {_resident_bytes(guest) / 1e6:.1f} MB at last"
        )

    assert clock.year == 2019
    assert restarts == "0"
    assert arrived(server).times.total() == len(SALES)
    assert _clock_error_s(server) < CLOCK_ERROR_S_MAX


def test_a_file_on_the_boot_partition_enrols_it_though_the_power_goes_meanwhile(
    guest: Guest, server: Server, tmp_path: Path
) -> None:
    """Cut as soon as the server let it in; at the next boot the same code still leads to the same device."""
    code, partition = a_code(server, DEVICE), tmp_path / "boot.img"
    wanted = f'server = "{address_of(server)}"\ncode = "{code}"\n{QUICK}'
    disk = write_boot_partition(partition, {"scout-agent.toml": wanted.encode()})
    guest.power_on(*disk)
    until(lambda: _is_enrolled(server), "the server lets it in", ENROLLED_S)
    guest.cut_power()
    guest.power_on(*disk)
    until(lambda: "running" in guest.run("systemctl show -P SubState scout-agent").text, "the agent runs", ENROLLED_S)
    _drop(guest)
    wait_until_arrived(guest, server, set(NAMES))
    guest.power_off()
    left = boot_partition_file(partition, "scout-agent.txt")

    assert boot_partition_file(partition, "scout-agent.toml") is None
    assert left
    assert DEVICE in left.decode()
    assert code not in left.decode()
    assert arrived(server).times.total() == len(SALES)


def _is_enrolled(server: Server) -> bool:
    return json.loads(server.command("devices", "show", DEVICE, "--json"))["enrolled_at"] is not None


def _drop(guest: Guest) -> None:
    """Write the day's sales as a file to the till's folder."""
    lines = " ".join(quoted(sale) for sale in SALES)
    guest.run(f"cd /var/lib/till/sales; printf '%s\\n' {lines} > day.tmp; mv day.tmp day.jsonl")


def _clock_error_s(server: Server) -> float:
    """How far silver's idea of when the sales were taken is from now, at most."""
    with psycopg.connect(server.command("dsn"), autocommit=True) as connection:
        row = connection.execute(
            "select extract(epoch from max(abs(clock_timestamp() - captured_at)))::float from scout.silver_transactions"
        ).fetchone()
    assert row
    return float(row[0])
