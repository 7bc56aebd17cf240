"""A program of ours that is loaded once and forks for each command: for a shell that gives a hundred of them.

    warm.py MODULE SOCKET ◀── the client in tests/docs/programs: words, folder, environment, and its three files

The command runs as it would by itself, in a process of its own: MODULE's main() with those words, from that folder.
"""

import importlib
import json
import os
import socket
import sys
from pathlib import Path


def _run(module: str, asked: dict[str, object], files: list[int]) -> None:
    """Become the command. Never returns."""
    status = 1
    try:
        for place, file in enumerate(files):
            os.dup2(file, place)
        os.chdir(str(asked["folder"]))
        os.environ.clear()
        os.environ.update(asked["environment"])  # type: ignore[call-overload]
        sys.argv = list(asked["words"])  # type: ignore[call-overload]
        importlib.import_module(module).main()
        status = 0
    except SystemExit as ended:
        status = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def serve(module: str, place: str) -> None:
    """Answer clients, one after the other, until killed."""
    importlib.import_module(module)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(place)
        listener.listen()
        while True:
            client, _ = listener.accept()
            with client:
                asked, files, _, _ = socket.recv_fds(client, 1 << 20, 3)
                child = os.fork()
                if not child:
                    listener.close()
                    _run(module, json.loads(asked), files)
                for file in files:
                    os.close(file)
                _, ended = os.waitpid(child, 0)
                client.sendall(str(os.waitstatus_to_exitcode(ended)).encode())


if __name__ == "__main__":
    Path(sys.argv[2]).unlink(missing_ok=True)
    serve(sys.argv[1], sys.argv[2])
