"""scout-agent as it is, but its intake hangs for ever once a file named `.hang` lies in the till's folder.

One named `.die` ends the intake's thread by an error that nobody foresaw. It is impatient, too: what takes minutes in
a shop takes a second here. Only tests start it.
"""

import threading
from pathlib import Path

from agent import __main__, daemon, intake_loop
from agent.sources import folder


class HangingFolder(folder.FolderSource):
    """A folder source that can be brought to hang, as a stuck card would do it, or to die."""

    def step(self) -> float:
        """Take what is ready, unless told otherwise."""
        here = Path(self._folder.decode())
        if (here / ".hang").exists():
            threading.Event().wait()
        if (here / ".die").exists():
            raise RuntimeError("nobody foresaw this")
        return super().step()


intake_loop.FolderSource = HangingFolder
daemon.SLACK_S = 0.5
daemon.READ_BYTES_PER_S = 1_000_000_000

if __name__ == "__main__":
    __main__.main()
