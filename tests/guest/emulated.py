"""An arm64 machine under full emulation, with a card whose power can be cut.

May be relied on: `run` runs a command as root in the guest; `cut_power` ends the machine in the middle of whatever it
does, and what its kernel had not written to the card by then is gone. The card keeps all that was written to it: what
a card's own cache may lose is not tried here. The guest reaches this machine's loopback as 10.0.2.2.
"""

import shlex
import socket
import subprocess
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Self

from agent_kit import until
from kernels import Kernel
from roots import unpacked

BOOT_S = 300.0
"""A boot takes a thirtieth of it on a machine that has nothing else to do."""

HOST = "10.0.2.2"
CARD_BYTES = 2 * 1024**3
BOOT_PARTITION = "/boot/firmware"
_DOOR = 2222
_KERNEL_LINE = "console=ttyAMA0 quiet systemd.getty_auto=no systemd.mask=systemd-modules-load.service"
"""Without udev nobody waits for a console; the initrd loaded every module that there is."""

_FILES = {
    "etc/hostname": "pi-05\n",
    "etc/systemd/system/hand.socket": (
        f"[Socket]\nListenStream={_DOOR}\nAccept=yes\n[Install]\nWantedBy=multi-user.target\n"
    ),
    "etc/systemd/system/hand@.service": (
        "[Service]\nExecStart=-/bin/sh\nStandardInput=socket\nStandardOutput=socket\nStandardError=socket\n"
        "Environment=HOME=/root LANG=C.UTF-8 DEBIAN_FRONTEND=noninteractive PYTHONDONTWRITEBYTECODE=1\n"
    ),
}


@dataclass(frozen=True)
class Said:
    """What a command in the guest ended with, and said."""

    status: int
    text: str


class Guest:
    """A guest on a card of its own: a raw ext4 image."""

    def __init__(self, kernel: Kernel, card: Path) -> None:
        self._kernel = kernel
        self._card = card
        self._console = card.with_suffix(".console")
        self._process: subprocess.Popen[bytes] | None = None
        self._port = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.cut_power()

    def power_on(self, *options: str) -> float:
        """Boot until systemd says that it is up; return how many seconds that took."""
        self._port = _free_port()
        before_s = monotonic()
        command = _command(self._kernel, self._card, self._console, self._port)
        self._process = subprocess.Popen([*command, *options], stdin=subprocess.DEVNULL)
        until(self._is_up, f"the guest is up; its console: {self._console}", BOOT_S)
        return monotonic() - before_s

    def cut_power(self) -> None:
        """Cut the power."""
        if self._process:
            self._process.kill()
            self._process.wait()
            self._process = None

    def power_off(self) -> None:
        """Switch it off as a careful person does."""
        assert self._process
        with suppress(OSError):
            self.run("systemctl poweroff --no-block")
        self._process.wait(BOOT_S)
        self._process = None

    def run(self, command: str, *, check: bool = True, timeout_s: float = 120.0) -> Said:
        """Run shell lines as root in the guest."""
        with socket.create_connection(("127.0.0.1", self._port), timeout_s) as connection:
            connection.sendall(f"({command}\n) </dev/null 2>&1; status=$?; echo; echo $status; exit\n".encode())
            answer = b"".join(iter(lambda: connection.recv(65536), b"")).decode(errors="replace")
        text, _, status = answer.rstrip("\n").rpartition("\n")
        if not status.isdigit():
            raise ConnectionError(f"the guest didn't finish: {command}: {answer}")
        said = Said(int(status), text.removesuffix("\n"))
        assert said.status == 0 or not check, f"{command}: {said.text}"
        return said

    def _is_up(self) -> bool:
        assert self._process
        assert self._process.poll() is None, self._console.read_text(errors="replace")
        try:
            said = self.run("systemctl is-system-running", check=False, timeout_s=10)
        except OSError:
            return False
        return said.text in ("running", "degraded")


def write_card(root: Path, home: Path, files: Iterable[Path]) -> Path:
    """Write a root's tarball to a card, with a way in for the test and these files in /root."""
    tree = unpacked(root, home / "tree")
    for name, text in _FILES.items():
        (tree / name).write_text(text)
    (tree / "etc/machine-id").write_text("")
    wanted = tree / "etc/systemd/system/multi-user.target.wants/hand.socket"
    wanted.symlink_to("/etc/systemd/system/hand.socket")
    (tree / BOOT_PARTITION[1:]).mkdir(parents=True)
    subprocess.run(["cp", *files, str(tree / "root")], check=True)
    card = home / "card.img"
    with card.open("wb") as image:
        image.truncate(CARD_BYTES)
    subprocess.run(["mke2fs", "-q", "-t", "ext4", "-d", str(tree), str(card)], check=True)
    subprocess.run(["rm", "-rf", str(tree)], check=True)
    return card


def copied(card: Path, home: Path) -> Path:
    """A copy of a card, to be spoilt."""
    copy = home / "card.img"
    subprocess.run(["cp", "--sparse=always", "--reflink=auto", str(card), str(copy)], check=True)
    return copy


def write_boot_partition(image: Path, files: Mapping[str, bytes]) -> tuple[str, ...]:
    """Make a FAT partition as a technician's PC does; return the options that put it into a guest."""
    with image.open("wb") as file:
        file.truncate(16 * 1024 * 1024)
    subprocess.run(["mkfs.vfat", str(image)], check=True, capture_output=True)
    for name, content in files.items():
        subprocess.run(["mcopy", "-i", str(image), "-", f"::{name}"], input=content, check=True)
    return _disk(image, "boot")


def boot_partition_file(image: Path, name: str) -> bytes | None:
    """What the technician's PC reads there; None where there is no such file."""
    done = subprocess.run(["mtype", "-i", str(image), f"::{name}"], capture_output=True, check=False)
    return done.stdout if done.returncode == 0 else None


def quoted(text: str) -> str:
    """A text as a word for the guest's shell."""
    return shlex.quote(text)


def _command(kernel: Kernel, card: Path, console: Path, port: int) -> list[str]:
    return [
        *("setpriv", "--pdeathsig", "KILL"),
        "qemu-system-aarch64",
        *("-M", "virt,gic-version=3", "-accel", "tcg,thread=multi", "-cpu", "cortex-a76", "-smp", "2", "-m", "768"),
        *(
            "-kernel",
            str(kernel.image),
            "-initrd",
            str(kernel.initrd),
            "-append",
            _KERNEL_LINE,
        ),
        *("-display", "none", "-monitor", "none", "-nodefaults", "-no-reboot", "-serial", f"file:{console}"),
        *_disk(card, "card"),
        *("-netdev", f"user,id=net,hostfwd=tcp:127.0.0.1:{port}-:{_DOOR}"),
        *("-device", "virtio-net-pci,netdev=net,romfile=", "-device", "virtio-rng-pci"),
    ]


def _disk(image: Path, name: str) -> tuple[str, ...]:
    return ("-drive", f"if=none,id={name},format=raw,file={image}", "-device", f"virtio-blk-pci,drive={name}")


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])
