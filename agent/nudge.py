"""Notifications that shorten a wait: a loop is woken when somebody puts a file in place.

May be relied on: nothing depends on one. Where the system gives none, the loops find out when they look.
"""

import os
from collections.abc import Callable, Collection, Iterable
from pathlib import Path

import structlog
from watchdog.events import FileClosedEvent, FileMovedEvent, FileSystemEvent, FileSystemEventHandler
from watchdog.observers.inotify import InotifyObserver

log = structlog.get_logger()


class Nudges:
    """Wakes a loop when one of some files is put in place. Their folders must exist."""

    def __init__(self, files: Iterable[Path], wake: Callable[[], None]) -> None:
        self._observer = InotifyObserver()
        files = set(files)
        for folder in {file.parent for file in files}:
            self._observer.schedule(_Told(files, wake), str(folder), event_filter=[FileClosedEvent, FileMovedEvent])

    def start(self) -> None:
        """Listen, if the system lets us."""
        try:
            self._observer.start()
        except OSError as error:
            log.warning("no_notifications", error=error.strerror)

    def close(self) -> None:
        """Stop listening."""
        if self._observer.is_alive():
            self._observer.stop()
            self._observer.join()


class _Told(FileSystemEventHandler):
    def __init__(self, files: Collection[Path], wake: Callable[[], None]) -> None:
        self._files = files
        self._wake = wake

    def on_any_event(self, event: FileSystemEvent) -> None:
        if Path(os.fsdecode(event.dest_path or event.src_path)) in self._files:
            self._wake()
