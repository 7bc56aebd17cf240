"""The agent's package in blank Debian machines with a real systemd, and a real server to deliver to.

Each test boots a machine of its own, in which the package is installed already unless the test installs it.
"""

import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest
from agent_kit import sale, until
from debs import CHECKOUT, a_package, another_version
from house import Server, new_folder, stop
from machine import VARIABLES, Machine, a_machine
from roots import SUITES, root_tar, unpacked

pytestmark = [pytest.mark.packages, pytest.mark.root, pytest.mark.timeout(900)]

OLD, NEW, NEWEST = "0.0.1", "0.0.2", "0.0.3"
SPOOL, CONFIG = "/var/lib/scout-agent", "/etc/scout-agent/config.toml"
TILL = "/var/lib/till/sales"
BOOT = "/boot/firmware"
WHEELS = CHECKOUT / "build/wheels"
WITHIN_S = 120.0
_ROWS = """
    select count(*), count(distinct payload::jsonb ->> 'transaction_id')
    from scout_bronze.transactions_raw where device_id = %s
"""


@dataclass(frozen=True)
class Packages:
    """The same program as three versions; the newest one brings a step of the spool that the others don't know."""

    old: Path
    new: Path
    newest: Path


@pytest.fixture(scope="session")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Packages:
    """Build them once."""
    folder = tmp_path_factory.mktemp("packages")
    new = a_package("scout-agent", NEW)
    step = "usr/lib/scout-agent/lib/agent/sql/900_newest.sql"
    newest = another_version(new, folder, NEWEST, {step: "create table of_the_newest (thing text);\n"})
    return Packages(another_version(new, folder, OLD), new, newest)


@pytest.fixture(scope="session", params=SUITES)
def blank(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Unpack a Debian as it comes."""
    return unpacked(root_tar(request.param), tmp_path_factory.mktemp(request.param) / "root")


@pytest.fixture(scope="session")
def installed(blank: Path, packages: Packages, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install the package into a tree that isn't running, as whoever makes an image does."""
    tree = tmp_path_factory.mktemp("installed") / "root"
    subprocess.run(["cp", "--archive", "--reflink=auto", blank, tree], check=True)
    shutil.copy(packages.old, tree / "root/scout-agent.deb")
    in_tree = ["systemd-nspawn", "--quiet", f"--directory={tree}", "--register=no", "--keep-unit"]
    command = [*in_tree, "dpkg", "--install", "/root/scout-agent.deb"]
    subprocess.run(command, check=True, env=VARIABLES, stdin=subprocess.DEVNULL, capture_output=True)
    return tree


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    """Start a server that all machines reach."""
    folder = new_folder()
    server = Server(folder)
    server.start()
    yield server
    stop([server.process])
    shutil.rmtree(folder, ignore_errors=True)


class Pi(Machine):
    """A machine with a till, and what a technician does to it."""

    def install(self, package: Path) -> str:
        """Install a package with the network off; return what was said."""
        self.bring(package)
        return self.run(f"unshare --net apt-get install --yes --allow-downgrades /root/{package.name}").stdout

    def bring(self, package: Path) -> None:
        """Copy a package into it."""
        shutil.copy(package, self.path("/root") / package.name)

    def sell(self, *numbers: int) -> None:
        """Hand in sales as a careful till does."""
        file = self.path(f"{TILL}/{numbers[0]}.tmp")
        file.write_bytes(b"".join(sale(number) + b"\n" for number in numbers))
        file.rename(file.with_suffix(".jsonl"))

    def status(self) -> dict[str, object]:
        """Ask the installed program."""
        text = self.run("scout-agent status --json", check=False).stdout
        return dict(json.loads(text))

    def until_taken(self) -> None:
        """Wait until the till's folder is empty, so that the spool has it all."""
        until(lambda: not list(self.path(TILL).glob("*.jsonl")), "the sales are taken", WITHIN_S)

    def until_running(self, version: str) -> None:
        """Wait until the daemon of this version is up."""

        def is_up() -> bool:
            seen = self.status()
            daemon = seen.get("daemon")
            return isinstance(daemon, dict) and daemon["version"] == version

        until(is_up, f"scout-agent {version} runs", WITHIN_S)

    def state(self, path: str) -> str:
        """Owner, group and mode."""
        return self.run(f"stat -c '%U:%G %a' {path}").stdout.strip()


@dataclass
class Shop:
    """A device's name, and the server as it knows it."""

    device: str
    server: Server

    def enrol_command(self) -> str:
        """What the back office tells the technician to type."""
        return f"scout-agent enrol --server {self.server.base_url} --code {self.code()}"

    def code(self) -> str:
        """Get a code for this device."""
        said = self.server.command("devices", "code", self.device, "--server", self.server.base_url)
        found = re.search(r"--code (\S+)", said)
        assert found, said
        return found[1]

    def until_in_bronze(self, sales: int) -> None:
        """Wait until the server holds so many sales of this device, each once."""
        with psycopg.connect(self.server.command("dsn"), autocommit=True) as connection:

            def rows() -> tuple[int, int]:
                row = connection.execute(_ROWS, (self.device,)).fetchone()
                assert row
                return row

            until(lambda: rows()[1] >= sales, f"{sales} sales of {self.device} are in bronze", WITHIN_S)
            assert rows() == (sales, sales)


@pytest.fixture
def shop(server: Server, request: pytest.FixtureRequest) -> Shop:
    """Name a device after the test, so that no two share one."""
    name = re.sub("[^a-z0-9]+", "-", request.node.name.removeprefix("test_").lower())
    return Shop(f"{name[:40].strip('-')}-{abs(hash(request.node.nodeid)) % 10_000}", server)


Boot = Callable[[Path], AbstractContextManager[Pi]]


@pytest.fixture
def boot(tmp_path: Path) -> Boot:
    """Give a way to boot a tree."""

    @contextmanager
    def booted(tree: Path, **options: object) -> Iterator[Pi]:
        with a_machine(tmp_path, tree, **options) as machine:  # type: ignore[arg-type]
            yield Pi(machine.tree, machine.leader)

    return booted


@pytest.fixture
def pi(installed: Path, boot: Boot) -> Iterator[Pi]:
    """Boot a machine with the old package installed."""
    with boot(installed) as machine:
        yield machine


@pytest.fixture
def selling(pi: Pi, shop: Shop) -> Pi:
    """Enrol it, and deliver one sale."""
    pi.run(shop.enrol_command())
    config = pi.path(CONFIG)
    config.write_text(f"{config.read_text()}\n[heartbeat]\ninterval_s = 2.0\n")
    pi.run("systemctl restart scout-agent")
    pi.sell(1)
    shop.until_in_bronze(1)
    return pi


def identity(pi: Pi) -> tuple[str, str, object]:
    """What makes a device itself: its key, its config, its spool's epoch."""
    key, config = pi.path(f"{SPOOL}/device-key"), pi.path(CONFIG)
    return key.read_text(), config.read_text(), pi.status()["epoch"]


# From a blank machine to a delivered sale


def test_a_blank_machine_delivers_after_two_commands(blank: Path, packages: Packages, boot: Boot, shop: Shop) -> None:
    """Installed without a network in seconds; `status` says what comes next; enrolling starts the agent."""
    with boot(blank) as pi:
        began_s = time.monotonic()
        said = pi.install(packages.new)
        install_s = time.monotonic() - began_s
        before = pi.run("scout-agent status", check=False).stdout
        state = pi.show("scout-agent.service", "ActiveState", "ConditionResult", "UnitFileState")
        began_s = time.monotonic()
        pi.run(shop.enrol_command())
        pi.until_running(NEW)
        ready_s = time.monotonic() - began_s
        pi.sell(1)
        shop.until_in_bronze(1)

        began, ready = pi.show("scout-agent", "ExecMainStartTimestampMonotonic", "ActiveEnterTimestampMonotonic")
        print(
            f"{blank.parent.name}: installed in {install_s:.1f} s, enrolled and running after {ready_s:.1f} s more, "
            f"start to READY {(int(ready) - int(began)) / 1e6:.2f} s, {packages.new.stat().st_size:,} bytes"
        )
        assert "scout-agent enrol" in said
        assert "scout-agent enrol" in before
        assert state == ["inactive", "no", "enabled"]
        assert pi.run("systemctl is-system-running", check=False).stdout.strip() == "running"


def test_what_it_installs_belongs_to_whom_it_should(pi: Pi) -> None:
    """The till's group may write sales, the agent alone its spool, and nobody without rights reads either."""
    states = {path: pi.state(path) for path in (SPOOL, TILL, "/etc/scout-agent", "/usr/bin/scout-agent")}

    assert states == {
        SPOOL: "scout-agent:scout-agent 750",
        TILL: "root:scout-agent 2770",
        "/etc/scout-agent": "root:root 755",
        "/usr/bin/scout-agent": "root:root 755",
    }
    assert pi.run("getent passwd scout-agent").stdout.split(":")[5:] == [SPOOL, "/usr/sbin/nologin\n"]
    assert pi.run("dpkg --verify scout-agent").stdout == ""


def test_the_config_of_an_enrolment_is_the_services_and_names_its_example(selling: Pi) -> None:
    """Key and token are the agent's alone; the example that the config names is there."""
    named = re.search(r"/usr/share\S+", selling.path(CONFIG).read_text())

    assert named
    assert selling.path(named[0]).read_text() == (CHECKOUT / "config.example.toml").read_text()
    assert selling.state(CONFIG) == "root:scout-agent 640"
    assert selling.state(f"{SPOOL}/device-key") == "scout-agent:scout-agent 600"
    assert selling.state(f"{SPOOL}/token") == "scout-agent:scout-agent 600"


def test_it_runs_on_nothing_but_its_own_libraries(pi: Pi) -> None:
    """Neither a PYTHONPATH nor what somebody installed into Debian's Python gets in."""
    python = pi.run("python3 -c 'import sys; print(\"python%d.%d\" % sys.version_info[:2])'").stdout.strip()
    for folder in ("/srv/mine", f"/usr/local/lib/{python}/dist-packages", "/usr/lib/python3/dist-packages"):
        pi.run(f"mkdir -p {folder}")
        for module in ("typer", "httpx", "agent", "sitecustomize"):
            pi.path(f"{folder}/{module}.py").write_text("raise SystemExit('not this one')\n")

    assert pi.run("env PYTHONPATH=/srv/mine scout-agent --version").stdout == f"scout-agent {OLD}\n"


def test_a_renewal_finds_the_libraries_too(selling: Pi, shop: Shop) -> None:
    """It happens in a process of its own, under the unit's hardening."""
    token = selling.path(f"{SPOOL}/token")
    before = token.read_text()
    shop.server.command("tokens", "rotate", shop.device)
    until(lambda: "token_renewed" in selling.events("scout-agent"), "the token is renewed", 150)

    assert token.read_text() != before


@pytest.mark.parametrize(
    ("file", "shell"),
    [
        ("/usr/share/bash-completion/completions/scout-agent", "complete_bash"),
        ("/usr/share/zsh/vendor-completions/_scout-agent", "complete_zsh"),
        ("/usr/share/fish/vendor_completions.d/scout-agent.fish", "complete_fish"),
    ],
)
def test_shells_complete_its_commands(pi: Pi, file: str, shell: str) -> None:
    """Each shell's file asks the program, and the program answers."""
    asked = f"_SCOUT_AGENT_COMPLETE={shell} COMP_CWORD=1 _TYPER_COMPLETE_FISH_ACTION=get-args"
    answer = pi.run(f"env {asked} COMP_WORDS='scout-agent en' _TYPER_COMPLETE_ARGS='scout-agent en' scout-agent").stdout

    assert shell in pi.path(file).read_text()
    assert "enrol" in answer


# Debian's Python


def byte_code(pi: Pi) -> set[str]:
    """All that Python made of our modules."""
    return set(pi.run("find /usr/lib/scout-agent -name '*.pyc'").stdout.split())


def test_byte_code_follows_debians_python(pi: Pi) -> None:
    """It is made at installation, and anew by Debian's own hook when python3 changes; a removal leaves none."""
    made = byte_code(pi)
    modules = pi.run("find /usr/lib/scout-agent/lib/agent -name '*.py'").stdout.split()
    of_the_agent = {file for file in made if file.startswith("/usr/lib/scout-agent/lib/agent/")}
    stale = "/usr/lib/scout-agent/lib/agent/__pycache__/daemon.cpython-39.pyc"
    pi.path(stale).write_bytes(b"of an older python3")
    # As python3's own postinst calls what lies there.
    hooks = pi.run("grep -c runtime.d /var/lib/dpkg/info/python3.postinst").stdout
    pi.run("rm -r /usr/lib/scout-agent/lib/agent/__pycache__")
    pi.run("/usr/share/python3/runtime.d/scout-agent.rtupdate rtupdate python3.9 python3")

    assert int(hooks) > 0
    assert len(of_the_agent) == len(modules) > 50
    assert byte_code(pi) == made
    pi.run("apt-get remove --yes scout-agent")
    assert not pi.path("/usr/lib/scout-agent").exists()


def test_a_python_that_the_package_has_nothing_for_is_said(pi: Pi) -> None:
    """After an upgrade to a Debian that this package doesn't know."""
    for folder in pi.path("/usr/lib/scout-agent").glob("python*"):
        shutil.rmtree(folder)
    pi.path("/usr/lib/scout-agent/python3.10").mkdir()
    done = pi.run("scout-agent status", check=False)

    assert done.returncode == 1
    assert "this package is for Python 3.10" in done.stderr
    assert "Install the scout-agent package" in done.stderr


# Upgrade and downgrade


@pytest.mark.parametrize("way", ["upgrade", "downgrade"])
def test_another_version_keeps_identity_and_delivers_what_waits(
    selling: Pi, shop: Shop, packages: Packages, way: str
) -> None:
    """Sales wait because the server is away; the agent of the other version delivers them, once."""
    if way == "downgrade":
        selling.install(packages.new)
        selling.until_running(NEW)
    before = identity(selling)
    shop.server.kill()
    try:
        selling.sell(2, 3)
        selling.until_taken()
        selling.install(packages.new if way == "upgrade" else packages.old)
        selling.until_running(NEW if way == "upgrade" else OLD)
        waiting = selling.status()
        selling.sell(4)
        selling.until_taken()
    finally:
        shop.server.start()
    shop.until_in_bronze(4)

    assert identity(selling) == before
    assert (waiting["rows_not_sent"], waiting["rows_lost"]) == (2, 0)


def test_an_older_agent_refuses_a_newer_spool_and_loses_nothing(selling: Pi, shop: Shop, packages: Packages) -> None:
    """It says which version to install; what the till writes meanwhile stays where it is."""
    selling.install(packages.newest)
    selling.until_running(NEWEST)
    selling.sell(2)
    selling.until_taken()
    selling.install(packages.new)
    until(lambda: "newer agent" in selling.run("journalctl -u scout-agent --no-pager").stdout, "it refuses", WITHIN_S)
    said = selling.run("scout-agent status", check=False)
    selling.sell(3)

    assert said.returncode == 2
    assert "newer agent" in said.stdout
    assert selling.path(f"{TILL}/3.jsonl").exists()
    selling.install(packages.newest)
    shop.until_in_bronze(3)


def test_what_an_administrator_chose_outlives_an_upgrade(selling: Pi, packages: Packages) -> None:
    """A disabled service stays disabled and stopped, a changed config as it is, the till's folder with its owner."""
    selling.run("systemctl disable --now scout-agent")
    selling.run(f"chown games {TILL}")
    config = selling.path(CONFIG)
    config.write_text(config.read_text() + "# mine\n")
    selling.install(packages.new)

    assert selling.show("scout-agent.service", "ActiveState", "UnitFileState") == ["inactive", "disabled"]
    assert config.read_text().endswith("# mine\n")
    assert selling.state(TILL) == "games:scout-agent 2770"


def test_installed_twice_is_once(selling: Pi, shop: Shop, packages: Packages) -> None:
    """And a service that failed before is started again."""
    before = identity(selling)
    for _ in range(2):
        selling.install(packages.old)
        selling.run(f"dpkg --install /root/{packages.old.name}")
    selling.until_running(OLD)
    selling.sell(2)
    shop.until_in_bronze(2)

    assert identity(selling) == before


@pytest.mark.parametrize("moment", ["unpack", "postinst"])
def test_a_power_cut_in_an_upgrade_is_mended(selling: Pi, shop: Shop, packages: Packages, moment: str) -> None:
    """By what dpkg says itself: `dpkg --configure -a`, or the same command again where files were half unpacked."""
    before = identity(selling)
    selling.bring(packages.new)
    _kill_dpkg_when(selling, packages.new, moment)
    selling.run("dpkg --configure -a", check=False)
    if moment == "unpack":
        selling.install(packages.new)
    selling.until_running(NEW)
    selling.sell(2)
    shop.until_in_bronze(2)

    assert identity(selling) == before
    assert selling.run("dpkg-query -W -f '${Status}' scout-agent").stdout == "install ok installed"
    assert selling.run("dpkg --audit").stdout == ""


def _kill_dpkg_when(pi: Pi, package: Path, moment: str) -> None:
    """End dpkg and all that it started as soon as it is at work there."""
    dpkg = subprocess.Popen(
        ["nsenter", "--target", str(pi.leader), "--all", "--", "dpkg", "--install", f"/root/{package.name}"],
        env=VARIABLES,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )

    def is_there() -> bool:
        assert dpkg.poll() is None, "dpkg was done before it could be killed"
        if moment == "postinst":
            return bool(pi.run("pgrep -f py3compile", check=False).stdout)
        unpacked_to = os.walk(pi.path("/usr/lib/scout-agent"))
        return any(name.endswith(".dpkg-new") for _, _, names in unpacked_to for name in names)

    until(is_there, f"dpkg is at {moment}", WITHIN_S)
    pi.run("pkill -KILL -f 'dpkg|py3compile'", check=False)
    dpkg.wait(WITHIN_S)


# Remove and purge


def test_remove_keeps_everything_and_a_reinstallation_goes_on(selling: Pi, shop: Shop, packages: Packages) -> None:
    """The service is gone, and comes back by itself with the package."""
    before = identity(selling)
    selling.run("apt-get remove --yes scout-agent")
    states = selling.run("systemctl is-active scout-agent", check=False).stdout.strip()
    selling.sell(2)
    kept = [selling.path(path).exists() for path in (CONFIG, f"{SPOOL}/spool.db", f"{SPOOL}/device-key")]
    selling.install(packages.new)
    shop.until_in_bronze(2)

    assert states in ("inactive", "unknown")
    assert kept == [True, True, True]
    assert identity(selling) == before


def test_a_purge_of_a_settled_device_leaves_nothing(selling: Pi) -> None:
    """Every sale was receipted: no spool, no key, no config, no backup."""
    until_settled(selling)
    said = selling.run("apt-get purge --yes scout-agent").stdout

    assert "without a receipt" not in said
    left = selling.run(
        "find / -xdev -name '*scout-agent*' -not -path '/root/*' -not -path '/run/*'"
        " -not -path '/var/log/*' -not -path '/var/cache/*' -not -path '/proc/*'"
    ).stdout.split()
    assert left == []
    assert not selling.path("/var/lib/till").exists()


def until_settled(pi: Pi) -> None:
    """Wait until the server has receipted everything."""

    def is_settled() -> bool:
        seen = pi.status()
        return seen["rows_settled"] != 0 and seen["rows_accepted"] == 0 == seen["rows_not_sent"]

    until(is_settled, "everything is receipted", WITHIN_S)


def kept_by_purge(pi: Pi) -> Path:
    """The one folder that a purge left."""
    (kept,) = pi.path("/var/backups/scout-agent").iterdir()
    return kept


@pytest.fixture
def waiting(selling: Pi, shop: Shop) -> Iterator[Pi]:
    """Two sales wait, because the server is away."""
    until_settled(selling)
    shop.server.kill()
    try:
        selling.sell(2, 3)
        selling.until_taken()
        yield selling
    finally:
        if shop.server.process is None or shop.server.process.poll() is not None:
            shop.server.start()


def test_a_purge_keeps_what_waits_and_says_how_to_deliver_it(waiting: Pi, shop: Shop, packages: Packages) -> None:
    """How many, where, without key and token; and following what it says delivers each sale once."""
    said = waiting.run("apt-get purge --yes scout-agent").stdout
    kept = kept_by_purge(waiting)
    names = {path.name for path in kept.iterdir()}
    readme = (kept / "README.txt").read_text()

    assert "without a receipt: 2" in said
    assert f"/var/backups/scout-agent/{kept.name}" in said
    assert {"spool.db", "config.toml", "README.txt"} <= names
    assert not {name for name in names if name.startswith(("token", "device-key"))}
    assert waiting.run("stat -c %a /var/backups/scout-agent").stdout == "700\n"
    assert not waiting.path(SPOOL).exists()
    assert not waiting.path("/etc/scout-agent").exists()

    shop.server.start()
    commands = [line.strip().removeprefix("sudo ") for line in readme.splitlines() if line.startswith("  sudo ")]
    assert len(commands) > 3
    waiting.bring(packages.new)
    for command in commands:
        waiting.run(f"sh -c 'cd /root && {command.replace('CODE', shop.code())}'")
    shop.until_in_bronze(3)


@pytest.mark.parametrize("state", ["spool damaged", "python3 gone", "config gone", "set aside by damage"])
def test_a_purge_that_cant_tell_keeps_everything(selling: Pi, state: str) -> None:
    """Although, here, the server has every sale."""
    until_settled(selling)
    if state == "spool damaged":
        selling.run("systemctl stop scout-agent")
        selling.run(f"dd if=/dev/urandom of={SPOOL}/spool.db bs=4096 count=8 conv=notrunc")
    elif state == "python3 gone":
        selling.run("sh -c 'rm /usr/bin/python3*'")
    elif state == "config gone":
        selling.run(f"rm {CONFIG} {SPOOL}/spool.db-wal {SPOOL}/spool.db-shm", check=False)
        selling.run(f"chmod 0 {SPOOL}/spool.db")
        selling.run(f"truncate -s 100 {SPOOL}/spool.db")
    else:
        selling.run(f"install -d -o scout-agent {SPOOL}/damaged-2026-01-01")
    said = selling.run("dpkg --purge --force-depends scout-agent").stdout
    kept = kept_by_purge(selling)

    assert "without a receipt" in said
    assert (kept / "spool.db").exists()
    assert not selling.path(SPOOL).exists()


# A file on the boot partition


def put_card(tree: Path, text: str) -> None:
    """Write the file that a technician puts onto the card."""
    (tree / BOOT[1:]).mkdir(parents=True, exist_ok=True)
    (tree / BOOT[1:] / "scout-agent.toml").write_text(text)


def told(pi: Pi) -> str:
    """What is on the card for the technician."""
    file = pi.path(f"{BOOT}/scout-agent.txt")
    return file.read_text() if file.exists() else ""


def test_a_card_with_a_code_makes_a_device_at_its_first_boot(installed: Path, boot: Boot, shop: Shop) -> None:
    """Nobody logs in: it is enrolled, listens where the card says, and delivers; the code is off the card."""
    card = f'server = "{shop.server.base_url}"\ncode = "{shop.code()}"\n[folder]\npath = "{TILL}"\nsettle_s = 0.5\n'
    with boot(installed, prepare=lambda tree: put_card(tree, card)) as pi:
        until(lambda: shop.device in told(pi), "it is enrolled", WITHIN_S)
        pi.sell(1)
        shop.until_in_bronze(1)

        assert not pi.path(f"{BOOT}/scout-agent.toml").exists()
        assert "settle_s = 0.5" in pi.path(CONFIG).read_text()
        assert pi.state(f"{SPOOL}/token") == "scout-agent:scout-agent 600"
        until(lambda: pi.show("scout-agent-provision", "ActiveState") == ["inactive"], "the unit ends", WITHIN_S)
        assert pi.run("systemctl is-system-running", check=False).stdout.strip() == "running"


def test_a_card_without_a_network_waits_for_it_and_holds_up_nothing(installed: Path, boot: Boot, shop: Shop) -> None:
    """The machine is up meanwhile, and the card says that it is being tried."""
    card = f'server = "{shop.server.base_url}"\ncode = "{shop.code()}"\n'
    shop.server.kill()
    try:
        with boot(installed, prepare=lambda tree: put_card(tree, card)) as pi:
            until(lambda: "tries again" in told(pi), "it was tried", WITHIN_S)
            shop.server.start()
            until(lambda: shop.device in told(pi), "it is enrolled", 150)
            pi.until_running(OLD)
    finally:
        if shop.server.process is None or shop.server.process.poll() is not None:
            shop.server.start()


@pytest.mark.parametrize("kind", ["refused", "rubbish"])
def test_a_card_that_must_be_mended_says_so_and_is_kept(installed: Path, boot: Boot, shop: Shop, kind: str) -> None:
    """The agent isn't started, nothing is tried again, and there is no code in what is said."""
    code = "0000-0000-0000-0000"
    card = f'server = "{shop.server.base_url}"\ncode = "{code}"\n' if kind == "refused" else "\0\0 rubbish"
    with boot(installed, prepare=lambda tree: put_card(tree, card)) as pi:
        until(lambda: "Mend" in told(pi), "it is said", WITHIN_S)
        until(lambda: pi.show("scout-agent-provision", "ActiveState") == ["failed"], "the unit ends", WITHIN_S)

        assert code not in told(pi)
        assert pi.path(f"{BOOT}/scout-agent.toml").read_text() == card
        assert pi.show("scout-agent", "ActiveState") == ["inactive"]
        assert "Not enrolled" in pi.run("journalctl -u scout-agent-provision --no-pager").stdout


def test_a_device_that_lost_power_while_it_was_provisioned_tries_again(
    installed: Path, tmp_path: Path, shop: Shop
) -> None:
    """Killed over and over while it enrols: in the end it is the device, and its code was used once."""
    card = f'server = "{shop.server.base_url}"\ncode = "{shop.code()}"\n'
    with a_machine(tmp_path, installed) as machine:
        pi = Pi(machine.tree, machine.leader)
        put_card(pi.path("/"), card)
        for delay_s in (0.2, 0.5, 0.8, 1.1, 1.4, 1.7):
            pi.run(f"timeout --signal=KILL {delay_s} scout-agent provision", check=False)
            was_done = not pi.path(f"{BOOT}/scout-agent.toml").exists()
            if was_done:
                break
        pi.run("systemctl start scout-agent-provision")
        until(lambda: shop.device in told(pi), "it is enrolled", WITHIN_S)
        pi.run("systemctl start scout-agent")
        pi.sell(1)
        shop.until_in_bronze(1)


# Without the package


@pytest.fixture(scope="session")
def with_venv(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Unpack a Debian with what install.sh asks for."""
    return unpacked(root_tar("bookworm", packages=("python3-venv",)), tmp_path_factory.mktemp("with-venv") / "root")


def install_sh(pi: Pi, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run it with the wheels that the builder downloaded, and no network."""
    script = " ".join(("sh", "/checkout/deploy/pi/install.sh", *arguments))
    links = " ".join(f"/wheels/{folder.name}" for folder in WHEELS.glob("amd64-python3.11-*"))
    pip = f"PIP_NO_INDEX=1 'PIP_FIND_LINKS={links}'"
    return pi.run(f"unshare --net env {pip} {script}", check=False, timeout_s=300)


def test_install_sh_is_repeated_to_upgrade_and_gives_way_to_the_package(
    with_venv: Path, packages: Packages, boot: Boot, shop: Shop
) -> None:
    """It delivers; the second run changes nothing but the program; the package refuses until it is taken away."""
    binds = {"/checkout": CHECKOUT, "/wheels": WHEELS}
    with boot(with_venv, binds=binds) as pi:
        first = install_sh(pi)
        pi.run(shop.enrol_command())
        pi.sell(1)
        shop.until_in_bronze(1)
        before = identity(pi)
        second = install_sh(pi)
        pi.sell(2)
        shop.until_in_bronze(2)
        pi.bring(packages.new)
        refused = pi.run(f"dpkg --install /root/{packages.new.name}", check=False)
        gone = install_sh(pi, "--uninstall")
        pi.install(packages.new)
        pi.sell(3)
        shop.until_in_bronze(3)

        assert (first.returncode, second.returncode, gone.returncode) == (0, 0, 0), first.stderr + second.stderr
        assert "scout-agent enrol" in first.stdout
        assert identity(pi) == before
        assert refused.returncode != 0
        assert "--uninstall" in refused.stderr


def test_install_sh_checks_everything_before_it_changes_anything(blank: Path, boot: Boot) -> None:
    """All that is missing is said at once, with what to do; the machine is as before."""
    with boot(blank, binds={"/checkout": CHECKOUT}) as pi:
        pi.run("mount -t tmpfs -o size=1m none /opt")
        done = install_sh(pi)

        assert done.returncode == 1
        assert "python3-venv" in done.stderr
        assert "MiB free" in done.stderr
        assert "nothing was changed" in done.stderr
        assert not list(pi.path("/opt").iterdir())
        assert pi.run("getent passwd scout-agent", check=False).stdout == ""
