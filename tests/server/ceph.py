"""Ceph's S3 server in one folder: a monitor, a store in memory and the gateway, as Debian packages them.

    apt-get install --no-install-recommends radosgw ceph-mon ceph-osd

About 470 MB installed; up in half a minute. Everything listens on loopback and ends with the `with`.
"""

import socket
import subprocess
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from time import monotonic

DEADLINE_S = 120

CONFIGURATION = """
[global]
fsid = {fsid}
mon host = [v2:127.0.0.1:{monitor}]
mon initial members = a
auth cluster required = none
auth service required = none
auth client required = none
ms mon client mode = crc
ms bind msgr1 = false
public addr = 127.0.0.1
run dir = {folder}
admin socket = {folder}/$name.asok
log file = {folder}/$name.log
mon data = {folder}/mon
osd data = {folder}/osd
rgw data = {folder}/rgw
osd objectstore = memstore
memstore device bytes = 1073741824
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 1
osd pool default pg autoscale mode = off
osd crush chooseleaf type = 0
mon allow pool size one = true
mon osd full ratio = .99
mon data avail crit = 1
rgw frontends = beast endpoint=127.0.0.1:{gateway}
"""


@contextmanager
def ceph_gateway(folder: Path, keys: dict[str, str]) -> Iterator[str]:
    """Run it in `folder`, which has a short path; yield the URL of its S3 endpoint, to which `keys` open."""
    monitor, gateway = _free_ports(2)
    fsid = str(uuid.uuid4())
    conf = folder / "ceph.conf"
    conf.write_text(CONFIGURATION.format(fsid=fsid, folder=folder, monitor=monitor, gateway=gateway))
    for name in ("mon", "osd", "rgw"):
        (folder / name).mkdir()

    def run(program: str, *arguments: str) -> str:
        done = subprocess.run(
            [program, "-c", str(conf), *arguments], capture_output=True, text=True, timeout=DEADLINE_S, check=False
        )
        assert done.returncode == 0, f"{program} {arguments}: {done.stderr}"
        return done.stdout

    with ExitStack() as house:
        run("monmaptool", "--create", "--fsid", fsid, "--addv", "a", f"[v2:127.0.0.1:{monitor}]", f"{folder}/monmap")
        run("ceph-mon", "--mkfs", "-i", "a", "--monmap", f"{folder}/monmap")
        house.enter_context(_daemon("ceph-mon", "-c", str(conf), "-i", "a", "-f"))
        osd = str(uuid.uuid4())
        run("ceph", "osd", "new", osd)
        run("ceph-osd", "-i", "0", "--mkfs", "--osd-uuid", osd)
        house.enter_context(_daemon("ceph-osd", "-c", str(conf), "-i", "0", "-f"))
        _until(lambda: "1 up" in run("ceph", "osd", "stat"))  # before that, the gateway never comes up
        house.enter_context(_daemon("radosgw", "-c", str(conf), "-n", "client.rgw", "-f"))
        _until(lambda: _listens(gateway))
        run(
            "radosgw-admin",
            "user",
            "create",
            "--uid=tests",
            "--display-name=tests",
            f"--access-key={keys['AWS_ACCESS_KEY_ID']}",
            f"--secret={keys['AWS_SECRET_ACCESS_KEY']}",
        )
        yield f"http://127.0.0.1:{gateway}"


@contextmanager
def _daemon(*command: str) -> Iterator[None]:
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            yield
        finally:
            process.kill()  # its data is in memory


def _free_ports(count: int) -> list[int]:
    """Ports that were free a moment ago: these programs take no 0."""
    with ExitStack() as held:
        sockets = [held.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [each.getsockname()[1] for each in sockets]


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _until(condition: Callable[[], bool]) -> None:
    deadline, pause = monotonic() + DEADLINE_S, threading.Event()
    while not condition():
        assert monotonic() < deadline, "Ceph did not come up in time"
        pause.wait(0.2)
