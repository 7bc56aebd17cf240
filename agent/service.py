"""The installed service, as a command sees it.

May be relied on: nothing is started but the service that reads this very config, and nothing waits for it.
"""

import os
import subprocess
from pathlib import Path

from agent.config import CONFIG_DEFAULT

UNIT = "scout-agent.service"
SYSTEMD_RUNS = Path("/run/systemd/system")
ANSWERS_WITHIN_S = 20.0


def start_service(config_file: Path, systemd_runs: Path = SYSTEMD_RUNS) -> bool:
    """Have systemd start the service, if the config is the service's; say whether it took that on.

    `systemd_runs`: what exists where systemd is this machine's first process, see sd_booted(3).
    """
    is_ours = config_file.resolve() == CONFIG_DEFAULT and os.geteuid() == 0
    if not (is_ours and systemd_runs.exists()):
        return False
    try:
        return (
            subprocess.run(
                ["systemctl", "--quiet", "--no-block", "start", UNIT],
                check=False,
                capture_output=True,
                timeout=ANSWERS_WITHIN_S,
            ).returncode
            == 0
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
