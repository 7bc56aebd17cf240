"""What tests of the tail source share: a folder, a source on it, and time that passes while it works."""

import shutil
from collections.abc import Callable
from pathlib import Path

from agent_kit import BUILT_ON, NOW, numbers_in, sale
from fakes import FakeClock

from agent.intake import TailStore
from agent.sources.roll import RESCAN_S, SETTLE_S
from agent.sources.tail import TailSource
from agent.spool import Spool


def a_tail(folder: Path, store: TailStore, clock: FakeClock, wake: Callable[[], None] = lambda: None) -> TailSource:
    """Make a source as the daemon does, with rejected/ beside the folder."""
    return TailSource(folder, store, rejected=folder.parent / "rejected", wake=wake, clock=clock)


def catch_up(source: TailSource, clock: FakeClock) -> None:
    """Let the loop run until nothing is left that could be taken at once."""
    for _ in range(1000):
        wait_s = source.step()
        if wait_s > 1.0:
            return
        clock.pass_s(wait_s)
    raise AssertionError("it never rests")


def settle(source: TailSource, clock: FakeClock) -> None:
    """Let so much time pass that copies, and files that were renamed, are judged."""
    catch_up(source, clock)
    for _ in range(3):
        clock.pass_s(max(SETTLE_S, RESCAN_S))
        catch_up(source, clock)


def lines(*numbers: int) -> bytes:
    """Sales as a till appends them."""
    return b"".join(sale(number) + b"\n" for number in numbers)


def append(path: Path, text: bytes) -> None:
    """Append as a till does that opens its file each time."""
    with path.open("ab") as file:
        file.write(text)


def copy_and_truncate(path: Path, copy: Path) -> None:
    """Rotate as logrotate's copytruncate does."""
    shutil.copyfile(path, copy)
    with path.open("r+b") as file:
        file.truncate()


def stored(spool: Spool) -> list[int]:
    """The numbers of the sales taken so far, in their order."""
    spool.seal(NOW, BUILT_ON)
    while batch := spool.next_waiting():
        spool.accept(batch, "test")
    return [number for batch in spool.awaited(100_000) for number in numbers_in(spool.body(batch))]


def rejected(folder: Path) -> dict[str, tuple[bytes, str]]:
    """What was refused: the bytes and the reasons, by the name in rejected/."""
    place = folder.parent / "rejected"
    files = [path for path in place.glob("*") if not path.name.endswith(".reason.txt")]
    return {path.name: (path.read_bytes(), path.with_name(path.name + ".reason.txt").read_text()) for path in files}
