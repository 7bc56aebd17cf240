"""What a technician tells the running daemon: small files in control/ beside the spool.

May be relied on
- An order is one file of JSON put in place by a rename, so it is whole; of each kind the last one counts.
- Whoever may write into control/ may give orders: its group is the agent's. No signal, no socket, no root.
- The delivery loop looks at every step; a notification only makes it look sooner. An order that was given while
  the daemon was dead is obeyed when it starts; one that it was obeying when it died is obeyed again.
- Rubbish in control/ is removed and logged. It ends nothing.
"""

import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, ClassVar, TypeVar

import msgspec
import structlog

from agent.errors import LocalFault
from agent.files import sync_folder

ORDER_BYTES_MAX = 1024 * 1024

log = structlog.get_logger()


class Order(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Something that the daemon shall do."""

    kind: ClassVar[str]


class PauseOrder(Order, frozen=True):
    """Upload nothing for so many seconds; 0 ends a pause."""

    kind: ClassVar[str] = "pause"
    for_s: Annotated[float, msgspec.Meta(ge=0)]


class SendOrder(Order, frozen=True):
    """Deliver what is here now. The id tells whose order the board reports on."""

    kind: ClassVar[str] = "send"
    id: str


class ReplayOrder(Order, frozen=True):
    """Try batches again that were set aside; without keys, all."""

    kind: ClassVar[str] = "replay"
    keys: tuple[str, ...] = ()


KINDS = (PauseOrder.kind, SendOrder.kind, ReplayOrder.kind)

AnyOrder = TypeVar("AnyOrder", bound=Order)


class Orders:
    """The folder control/ of one spool."""

    def __init__(self, spool_directory: Path) -> None:
        self.folder = spool_directory / "control"

    def prepare(self) -> None:
        """Make the folder, for the agent's user and group. Without it there are no orders, and all else works."""
        try:
            if not self.folder.is_dir():
                self.folder.mkdir(parents=True)
                self.folder.chmod(0o770)
        except OSError as error:
            log.warning("no_orders", folder=str(self.folder), error=error.strerror)

    def give(self, order: Order) -> None:
        """Put an order in place. Raises LocalFault with what to do when that is not allowed."""
        try:
            descriptor, name = tempfile.mkstemp(dir=self.folder, prefix=".")
            with os.fdopen(descriptor, "wb") as file:
                file.write(msgspec.json.encode(order))
                os.fchmod(file.fileno(), 0o644)  # whoever gives it, the agent's user must read it
                file.flush()
                os.fsync(file.fileno())
            Path(name).replace(self.folder / order.kind)
            sync_folder(os.fsencode(self.folder))
        except FileNotFoundError:
            raise LocalFault(f"{self.folder} does not exist: start the agent once, it makes it") from None
        except PermissionError:
            raise LocalFault(
                f"{self.folder} may not be written: run this as root, or as a member of the agent's group"
            ) from None
        except OSError as error:
            raise LocalFault(f"{self.folder}: {error.strerror}. Nothing was ordered.") from None

    def is_open(self, kind: type[Order]) -> bool:
        """Whether an order of this kind waits, or is being obeyed."""
        return (self.folder / kind.kind).exists() or self._taken(kind).exists()

    def take(self, kind: type[AnyOrder]) -> AnyOrder | None:
        """The order of this kind, if there is one; it stays until `done`."""
        taken = self._taken(kind)
        given = self.folder / kind.kind
        try:
            if given.exists():
                given.replace(taken)  # first, so that a newer one can come meanwhile
            elif not taken.exists():
                return None
            return msgspec.json.decode(_content(taken), type=kind)
        except (OSError, msgspec.MsgspecError) as error:
            log.warning("order_not_understood", file=str(given), error=type(error).__name__)
            self.done(kind)
            return None

    def done(self, kind: type[Order]) -> None:
        """Forget the order that was taken."""
        try:
            self._taken(kind).unlink(missing_ok=True)
        except OSError as error:
            log.warning("order_not_removed", file=str(self._taken(kind)), error=error.strerror)

    @contextmanager
    def taken(self, kind: type[AnyOrder]) -> Iterator[AnyOrder | None]:
        """Obey an order; it is done unless that raises."""
        order = self.take(kind)
        yield order
        if order is not None:
            self.done(kind)

    def _taken(self, kind: type[Order]) -> Path:
        return self.folder / f".{kind.kind}.taken"


def _content(path: Path) -> bytes:
    """Read a plain file of moderate size; nothing else in a shared folder may hold up the loop."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW)
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError("not a file")
        content = file.read(ORDER_BYTES_MAX + 1)
    if len(content) > ORDER_BYTES_MAX:
        raise OSError("too long")
    return content
