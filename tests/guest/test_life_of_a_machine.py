"""A shop's machine as it is: set up offline and without a screen, with a wrong clock, a bad line, little memory."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pytest
from agent_kit import until
from cards import Installed
from emulated import Guest, boot_partition_file, quoted, write_boot_partition
from house import Server
from pi import (
    DEVICE,
    QUICK,
    address_of,
    arrived,
    enrol,
    enrol_in_a_hurry,
    status,
    wait_until_arrived,
    wait_until_drained,
)
from running_server import a_code

pytestmark = [pytest.mark.guest, pytest.mark.root, pytest.mark.timeout(3600)]

ENROLLED_S = 300.0
MEMORY_BYTES_MAX = 64 * 1024 * 1024
CLOCK_ERROR_MAX = timedelta(minutes=1)
SILVER_S = 60.0
NAMES = [f"sale-{number}" for number in range(50)]
SALES = [json.dumps({"transaction_id": name, "store_id": "102", "peso_value": 150.5}) for name in NAMES]


def _resident_bytes(guest: Guest) -> int:
    said = guest.run("grep VmRSS /proc/$(systemctl show --property MainPID --value scout-agent)/status")
    return int(said.text.split()[1]) * 1024


def test_three_commands_lead_from_a_blank_card_to_a_delivered_sale(
    installed: Installed, guest: Guest, server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    """Installed from its file alone, for there is no index; nothing failed; enrolling starts it; a boot starts it."""
    guest.power_on()
    before = guest.run("systemctl is-system-running; systemctl is-active scout-agent", check=False).text.split()
    index = guest.run("ls /var/lib/apt/lists | grep -c Packages", check=False).text
    enrol(guest, server)
    said = guest.run(f"echo {quoted(SALES[0])} | scout-agent add -")
    wait_until_arrived(guest, server, {NAMES[0]})
    wait_until_drained(guest)
    with capsys.disabled():
        print(f"\n{installed.suite}: booted in {installed.boot_s:.0f} s, installed in {installed.install_s:.0f} s")

    assert (index, before) == ("0", ["running", "inactive"])
    assert said.text == "1 sales stored"
    assert status(guest)["rows_settled"] == 1
    assert guest.run("systemctl is-active scout-agent; systemctl is-enabled scout-agent").text == "active\nenabled"


def test_a_wrong_clock_a_lossy_line_and_little_memory_keep_nothing_back(
    installed: Installed, guest: Guest, server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    """Enrolled and delivered while the clock is years behind, a packet in five is lost; silver has the true time."""
    guest.power_on()
    guest.run("date --set 2019-01-01")
    guest.run("tc qdisc add dev eth0 root netem loss 20% delay 50ms")
    enrol_in_a_hurry(guest, server)
    guest.run(f"systemctl set-property --runtime scout-agent MemoryMax={MEMORY_BYTES_MAX}")
    idle, before = _resident_bytes(guest), _now()
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
    until(lambda: _taken_since(server, before) == len(SALES), "silver has the true time of each", SILVER_S)


def test_a_file_on_the_boot_partition_enrols_it_though_the_power_goes_meanwhile(
    guest: Guest, server: Server, tmp_path: Path
) -> None:
    """Cut as soon as the server let it in; at the next boot the same code still leads to the same device."""
    code, partition = a_code(server, DEVICE), tmp_path / "boot.img"
    wanted = f'server = "{address_of(server)}"\ncode = "{code}"\n{QUICK}[folder]\npath = "/var/lib/till/sales"\n'
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


def _now() -> datetime:
    return datetime.now(UTC)  # noqa: TID251  (the guest's clock against the true one)


def _taken_since(server: Server, before: datetime) -> int:
    """How many sales were taken between then and now, by silver's times."""
    with psycopg.connect(server.command("dsn"), autocommit=True) as connection:
        row = connection.execute(
            "select count(*)::int from scout.silver_transactions where captured_at between %s and %s",
            [before - CLOCK_ERROR_MAX, _now() + CLOCK_ERROR_MAX],
        ).fetchone()
    assert row
    return int(row[0])
