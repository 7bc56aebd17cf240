"""From a blank Debian arm64 root to a delivered sale in three commands.

The root's programs run under emulation of their processor alone, on this machine's kernel. There is no systemd in
there, so the test starts the daemon where the service would have been started. The booted machine of tests/guest has
a systemd and does without.
"""

import json
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

import pytest
from agent_kit import until
from debs import a_package
from house import Server
from roots import SUITES, let_run, root_tar, unpacked
from running_server import a_code, a_running_server

pytestmark = [pytest.mark.packages, pytest.mark.root, pytest.mark.timeout(1800)]

DEVICE = "pi-05"
SALE = '{"transaction_id":"000123","store_id":"102","peso_value":150.50}'
DELIVERED_S = 300.0


@dataclass(frozen=True)
class Root:
    """A Debian tree whose programs are run where they can leave no process and no mount behind."""

    tree: Path

    def command(self, *words: str, account: str = "root", isolated: Sequence[str] = ()) -> list[str]:
        """How a program in there is started from here, in namespaces of its own.

        Their first process is a shell: one that changed its account would outlive the test that is killed.
        """
        return [
            *("unshare", "--mount", "--pid", "--fork", "--kill-child", *isolated, f"--mount-proc={self.tree}/proc"),
            *("sh", "-c", '"$@"; exit $?', "sh"),
            *("chroot", f"--userspec={account}", str(self.tree), *words),
        ]

    def run(self, *words: str, said: str = "", isolated: Sequence[str] = ()) -> str:
        """Run a program as root; return what it prints."""
        done = subprocess.run(
            self.command(*words, isolated=isolated),
            input=said,
            capture_output=True,
            text=True,
            check=False,
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8", "DEBIAN_FRONTEND": "noninteractive"},
        )
        assert done.returncode == 0, f"{' '.join(words)}: {done.stdout}{done.stderr}"
        return done.stdout


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """A server that both releases deliver to."""
    with a_running_server() as server:
        yield server


@pytest.fixture(params=SUITES)
def blank(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Root]:
    """A root with nothing of ours but the package's file."""
    let_run("arm64")
    tree = unpacked(root_tar(request.param, "arm64"), tmp_path / "tree")
    yield Root(tree)
    subprocess.run(["rm", "-rf", str(tree)], check=True)


def test_three_commands_lead_from_a_blank_arm64_root_to_a_delivered_sale(
    blank: Root, server: Server, request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]
) -> None:
    """Install without a network, enrol, hand over a sale: it is in bronze, once, and the device knows."""
    device = f"{DEVICE}-{request.node.callspec.id}"
    deb = a_package("scout-agent", "0.0.1", "arm64")
    subprocess.run(["cp", str(deb), str(blank.tree / "root")], check=True)
    before_s = monotonic()

    blank.run("apt-get", "install", "--yes", f"/root/{deb.name}", isolated=["--net"])
    installed_s = monotonic() - before_s
    blank.run("scout-agent", "enrol", "--server", server.base_url, "--code", a_code(server, device))
    with _the_daemon(blank):
        blank.run("scout-agent", "add", "-", said=SALE)
        until(lambda: _status(blank)["rows_settled"] == 1, "the sale is settled", DELIVERED_S)

    with capsys.disabled():
        print(f"\n{request.node.callspec.id}: installed in {installed_s:.0f} s, emulated")
    names, _identities = server.row("transaction_ids")
    seen = _status(blank)
    assert (seen["device"], seen["rows_not_sent"], seen["rows_accepted"]) == (device, 0, 0)
    assert names == ["000123"] * (SUITES.index(request.node.callspec.id) + 1)


def _status(root: Root) -> dict[str, object]:
    seen: dict[str, object] = json.loads(root.run("sh", "-c", "scout-agent status --json 2>/dev/null || true"))
    return seen


@contextmanager
def _the_daemon(root: Root) -> Iterator[None]:
    """What the unit starts, under its account."""
    root.run("install", "-d", "-o", "scout-agent", "-g", "scout-agent", "/run/scout-agent")
    with (root.tree.parent / "daemon.log").open("wb") as log:
        daemon = subprocess.Popen(
            root.command("scout-agent", "run", account="scout-agent:scout-agent"), stdout=log, stderr=log
        )
    try:
        yield
    finally:
        daemon.kill()
        daemon.wait()
