"""One renewal, in a process of its own: what signs is many megabytes that a resident agent must not carry.

    python -P -m agent.renewing     the config as JSON on stdin, an Outcome as JSON on stdout

May be relied on: `renew_in_child` returns once another token is in place, and raises what stood in the way otherwise,
within WITHIN_S. The config in force goes along, so a bad file on the disk keeps no token from being renewed. Nothing
secret is an argument or in the environment.
"""

import os
import signal
import subprocess
import sys
from dataclasses import dataclass

import msgspec

from agent.clock import SystemClock
from agent.config import Config
from agent.errors import (
    BatchRefused,
    ClockWrong,
    CredentialsRefused,
    DeliveryFault,
    LocalFault,
    OperatorNeeded,
    ScoutAgentError,
    Wait,
)
from agent.identity import renew
from agent.transport import client_of

WITHIN_S = 100.0
"""Two short posts on a slow line, and Python's start on a slow card. Less than a loop may be silent."""

_LOCAL = "local"
_FAULTS: dict[str, type[DeliveryFault]] = {
    fault.kind: fault for fault in (Wait, ClockWrong, CredentialsRefused, BatchRefused, OperatorNeeded)
}


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a renewal ended. `kind` is None, or that of a fault."""

    kind: str | None = None
    message: str = ""
    retry_after_s: float | None = None


def renew_in_child(config: Config) -> None:
    """Replace the token by another one. Raises DeliveryFault or LocalFault."""
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-m", "agent.renewing"],
            input=msgspec.json.encode(config),
            capture_output=True,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},  # it finds what we found
            timeout=WITHIN_S,
            check=False,
        )
        outcome = msgspec.json.decode(done.stdout, type=Outcome)
    except subprocess.TimeoutExpired:
        raise Wait(f"the token was not renewed within {WITHIN_S:.0f} s") from None
    except OSError as error:
        raise LocalFault(f"the token can't be renewed: {sys.executable}: {error.strerror}") from None
    except msgspec.MsgspecError:
        raise LocalFault(f"the token can't be renewed: its process ended with status {done.returncode}") from None
    if outcome.kind is None:
        return
    fault = _FAULTS.get(outcome.kind)
    if fault is None:
        raise LocalFault(outcome.message)
    if issubclass(fault, Wait):
        raise fault(outcome.message, outcome.retry_after_s)
    raise fault(outcome.message)


def main() -> None:
    """Be the child."""
    # The daemon has some blocked, to receive them in one thread alone. Whoever stops it stops this, too.
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    config = msgspec.json.decode(sys.stdin.buffer.read(), type=Config)
    sys.stdout.buffer.write(msgspec.json.encode(_outcome(config)))


def _outcome(config: Config) -> Outcome:
    try:
        with client_of(config) as client:
            renew(config, client, SystemClock())
    except DeliveryFault as fault:
        return Outcome(fault.kind, str(fault), fault.retry_after_s if isinstance(fault, Wait) else None)
    except ScoutAgentError as fault:
        return Outcome(_LOCAL, str(fault))
    return Outcome()


if __name__ == "__main__":
    main()
