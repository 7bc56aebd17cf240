"""A kernel out of Debian's package and a small initrd for it, without running anything of another architecture.

The initrd loads the modules that a disk, a network and a boot partition need, gives the network card its address,
mounts what there is, and leaves everything else to the root's own systemd.
"""

import lzma
import re
import shutil
import subprocess
import tarfile
from dataclasses import dataclass
from pathlib import Path, PurePath

from roots import extracted_tar

MODULES = (
    *("virtio_mmio", "virtio_pci", "virtio_blk", "virtio_net", "virtio-rng"),
    *("crc32c_generic", "ext4", "vfat", "nls_cp437", "nls_ascii"),
    "sch_netem",
)
"""What is none of the kernel's own, with what it needs. crc32c_generic: ext4 asks for it by another name."""

INIT = """\
#!/bin/busybox sh
/bin/busybox mkdir -p /proc /sys /dev /root
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t sysfs sysfs /sys
/bin/busybox mount -t devtmpfs devtmpfs /dev
for module in /modules/*; do /bin/busybox insmod "$module"; done
while [ ! -b /dev/vda ]; do /bin/busybox usleep 20000; done
/bin/busybox ip link set lo up
/bin/busybox ip link set eth0 up
/bin/busybox ip address add 10.0.2.15/24 dev eth0
/bin/busybox ip route add default via 10.0.2.2
/bin/busybox mount -t ext4 /dev/vda /root
if [ -b /dev/vdb ]; then /bin/busybox mount -t vfat /dev/vdb /root/boot/firmware; fi
exec /bin/busybox switch_root /root /sbin/init
"""


@dataclass(frozen=True)
class Kernel:
    """What a guest is booted with."""

    image: Path
    initrd: Path


def a_kernel(suite: str, package: str, home: Path) -> Kernel:
    """Take the kernel out of a package of Debian's, into `home`."""
    home.mkdir()
    with tarfile.open(extracted_tar(suite, "arm64", [package, "busybox-static"])) as tar:
        members = {member.name: member for member in tar.getmembers()}
        (image,) = [name for name in members if "/boot/vmlinuz-" in name]
        busybox = next(name for name in members if re.fullmatch(r"\./(usr/)?bin/busybox", name))
        modules = {_module_name(name): name for name in members if re.search(r"\.ko(\.xz)?$", name)}
        (home / "vmlinuz").write_bytes(_content(tar, image))
        tree = home / "initrd"
        (tree / "modules").mkdir(parents=True)
        (tree / "bin").mkdir()
        (tree / "bin/busybox").write_bytes(_content(tar, busybox))
        for number, module in enumerate(_in_order(tar, modules)):
            (tree / f"modules/{number:02d}.ko").write_bytes(_content(tar, modules[module]))
    (tree / "init").write_text(INIT)
    for program in ("bin/busybox", "init"):
        (tree / program).chmod(0o755)
    return Kernel(home / "vmlinuz", _packed(tree, home / "initrd.img"))


def _in_order(tar: tarfile.TarFile, modules: dict[str, str]) -> list[str]:
    """Every module after those that it says it depends on; what the kernel has built in is not among them."""
    ordered: list[str] = []

    def take(module: str) -> None:
        if module in ordered or module not in modules:
            return
        found = re.search(rb"\0depends=([^\0]*)\0", _content(tar, modules[module]))
        for needed in found.group(1).decode().split(",") if found else []:
            take(needed)
        ordered.append(module)

    for wanted in MODULES:
        take(wanted.replace("-", "_"))
    return ordered


def _module_name(path: str) -> str:
    return PurePath(path).name.partition(".")[0].replace("-", "_")


def _content(tar: tarfile.TarFile, name: str) -> bytes:
    file = tar.extractfile(name)
    assert file
    return lzma.decompress(file.read()) if name.endswith(".xz") else file.read()


def _packed(tree: Path, image: Path) -> Path:
    names = "\n".join(str(path.relative_to(tree)) for path in sorted(tree.rglob("*")))
    with image.open("wb") as archive:
        command = ["busybox", "cpio", "-o", "-H", "newc"]
        subprocess.run(command, cwd=tree, input=names.encode(), stdout=archive, stderr=subprocess.DEVNULL, check=True)
    shutil.rmtree(tree)
    return image
