"""Notifications of a folder, which shorten the wait and prove nothing: a source looks for itself.

May be relied on: while `keep` is called at every step, the folder that lies at the path now is the one that is
listened to, also after it was removed and made again, or mounted over, or the link to it was changed. Where the
kernel gives no notifications (its limits are reached) the source goes on without.
"""

import os
from collections.abc import Callable, Sequence

import structlog
from watchdog.events import FileSystemEvent, FileSystemEventHandler
from watchdog.observers.inotify import InotifyObserver

log = structlog.get_logger()


class FolderWatch:
    """Listens to one folder. Calls come from another thread."""

    def __init__(
        self, folder: bytes, events: Sequence[type[FileSystemEvent]], notified: Callable[[bytes | None], None]
    ) -> None:
        self._folder = folder
        self._events = list(events)
        self._notified = notified
        self._observer: InotifyObserver | None = None
        self._watched: tuple[int, int] | None = None

    def start(self) -> None:
        """Listen to what lies at the path now. Raises OSError when there is no folder."""
        status = os.stat(self._folder)
        self.close()
        self._watched = (status.st_dev, status.st_ino)
        observer = InotifyObserver(generate_full_events=True)
        try:
            # Its real path: of a path that is a link, the link itself would be watched.
            observer.schedule(
                _Handler(self._notified), os.fsdecode(os.path.realpath(self._folder)), event_filter=self._events
            )
            observer.start()
        except OSError as error:
            log.warning("folder_not_watched", folder=os.fsdecode(self._folder), error=str(error))
            return
        self._observer = observer

    def keep(self) -> None:
        """Listen anew when another folder lies at the path, once started. Raises OSError when there is none."""
        if self._watched:
            status = os.stat(self._folder)
            if self._watched != (status.st_dev, status.st_ino) or self._is_over():
                self.start()

    def _is_over(self) -> bool:
        """Whether the folder that was listened to is gone, though another may have its inode."""
        return self._observer is not None and not all(emitter.is_alive() for emitter in self._observer.emitters)

    def close(self) -> None:
        """Stop listening."""
        self._watched = None
        if self._observer and self._observer.is_alive():
            self._observer.stop()
            self._observer.join()
        self._observer = None


class _Handler(FileSystemEventHandler):
    """Hands over the name of a file that is whole, and None for whatever else happened."""

    def __init__(self, notified: Callable[[bytes | None], None]) -> None:
        self._notified = notified

    def on_any_event(self, event: FileSystemEvent) -> None:
        whole = {"closed": event.src_path, "moved": event.dest_path}.get(event.event_type)
        self._notified(os.path.basename(os.fsencode(whole)) if whole else None)
