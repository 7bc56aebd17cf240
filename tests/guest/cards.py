"""A card of a Debian release with the package installed by apt, in the guest itself."""

from dataclasses import dataclass
from pathlib import Path
from time import monotonic

from debs import a_package
from emulated import Guest, write_card
from kernels import Kernel, a_kernel
from roots import root_tar

TILLS = Path(__file__).with_name("tills.py")
KERNELS = {"bookworm": "linux-image-arm64", "trixie": "linux-image-arm64-16k"}
"""trixie's with pages of 16 KiB, as a Pi 5 has."""


@dataclass(frozen=True)
class Installed:
    """A card with the package installed, switched off, and how long that took in the guest."""

    suite: str
    kernel: Kernel
    card: Path
    boot_s: float
    install_s: float
    said: str


def installed_card(suite: str, home: Path) -> Installed:
    """Install the package on a blank card."""
    kernel = a_kernel(suite, KERNELS[suite], home / "kernel")
    deb = a_package("scout-agent", "0.0.1", "arm64")
    card = write_card(root_tar(suite, "arm64"), home, [deb, TILLS])
    with Guest(kernel, card) as guest:
        boot_s = guest.power_on()
        before_s = monotonic()
        said = guest.run(f"apt-get install --yes /root/{deb.name}", timeout_s=900)
        install_s = monotonic() - before_s
        guest.power_off()
    return Installed(suite, kernel, card, boot_s, install_s, said.text)
