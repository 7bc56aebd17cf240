"""Debian's nginx with deploy/proxy/scout-edge.conf, on loopback, by whoever runs the tests.

May be relied on: of that file only ports, the name and the paths of the certificate are replaced, each of which must
be in it. Around it stands what Debian's own nginx.conf has that matters here.
"""

import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from alerts import CHECKOUT
from house import wait_for

CONF = CHECKOUT / "deploy" / "proxy" / "scout-edge.conf"
NAME = "127.0.0.1"
_AROUND = """
{account}
pid {folder}/nginx.pid;
error_log {folder}/error.log warn;
daemon off;
events {{ worker_connections 768; }}
http {{
    access_log {folder}/access.log;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    types {{ text/html html; }}
    gzip on;
    include {folder}/scout-edge.conf;
}}
"""


@dataclass(frozen=True)
class Nginx:
    """It runs; `certificate` is the file that it reads when it starts and at each reload."""

    folder: Path
    port: int
    plain_port: int
    certificate: Path
    process: subprocess.Popen[bytes]

    @property
    def url(self) -> str:
        """Where it answers by TLS."""
        return f"https://{NAME}:{self.port}"

    def present(self, certificate: Path) -> None:
        """Use another certificate from now on."""
        shutil.copy(certificate, self.certificate)
        self.reload()

    def reload(self) -> None:
        """Read the files again, as `systemctl reload nginx` does; return once the new workers are there."""
        before = self._workers()
        self.process.send_signal(signal.SIGHUP)
        wait_for(lambda: bool(self._workers() - before), 20, lambda: f"no reload:\n{self.errors()}")

    def errors(self) -> str:
        """What it complained about."""
        return (self.folder / "error.log").read_text()

    def _workers(self) -> set[str]:
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return set(children.read_text().split())


def free_port(host: str = NAME) -> int:
    """A port that nobody listens on."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, 0), family=family) as listener:
        return int(listener.getsockname()[1])


@contextmanager
def an_nginx(folder: Path, server_port: int, certificate: Path, **changes: str) -> Iterator[Nginx]:
    """Run it before the server on a port until the end; `changes` are further texts, replaced by their values."""
    program = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")
    assert program, "nginx is not here: apt-get install --no-install-recommends nginx-light"
    folder.mkdir()
    port, plain_port = free_port(), free_port()
    presented = shutil.copy(certificate, folder / "presented.pem")
    text = CONF.read_text()
    for before, after in {
        "listen [::]:443 ssl;": _also_on_ipv6(" ssl"),
        "listen [::]:80;": _also_on_ipv6(),
        "listen 443 ssl;": f"listen {NAME}:{port} ssl;",
        "listen 80;": f"listen {NAME}:{plain_port};",
        "127.0.0.1:8700": f"127.0.0.1:{server_port}",
        "/etc/letsencrypt/live/sales.example.com/fullchain.pem": str(presented),
        "/etc/letsencrypt/live/sales.example.com/privkey.pem": str(presented),
        "server_name sales.example.com;": f"server_name {NAME};",
        **changes,
    }.items():
        assert before in text, before
        text = text.replace(before, after)
    (folder / "scout-edge.conf").write_text(text)
    account = "user root;" if os.geteuid() == 0 else ""  # the test's folders are closed to others
    (folder / "nginx.conf").write_text(_AROUND.format(folder=folder, account=account))
    process = subprocess.Popen(
        [program, "-p", folder, "-c", folder / "nginx.conf", "-e", folder / "error.log"], stderr=subprocess.DEVNULL
    )
    nginx = Nginx(folder, port, plain_port, Path(presented), process)

    def answers() -> bool:
        assert process.poll() is None, nginx.errors()
        with suppress(OSError), socket.create_connection((NAME, port), 1):
            return True
        return False

    try:
        wait_for(answers, 20, nginx.errors)
        yield nginx
    finally:
        process.terminate()
        process.wait(20)


def _also_on_ipv6(options: str = "") -> str:
    """A port on IPv6's loopback, where this machine has one."""
    try:
        return f"listen [::1]:{free_port('::1')}{options};"
    except OSError:
        return ""
