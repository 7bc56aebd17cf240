"""The tail source in the daemon itself: real processes, one that appends and rotates, one that is killed."""

import json
import random
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from agent_kit import FakeServer, environment, until, write_config

KILLS = 10

TILL = """
import json, os, random, shutil, sys, time
from pathlib import Path

folder, rng, number, contents = Path(sys.argv[1]), random.Random(int(sys.argv[2])), 0, []
path, stop = folder / "sales.jsonl", folder.parent / "stop"
while not stop.exists():
    contents.append([])
    for _ in range(rng.randrange(1, 30)):
        line = json.dumps({"transaction_id": f"t-{number}", "filler": "x" * rng.choice([0, 0, 900])}).encode() + b"\\n"
        cut = rng.choice([0, 0, rng.randrange(len(line))])
        with path.open("ab", buffering=0) as file:
            file.write(line[:cut])
            if cut:
                time.sleep(0.002)
            file.write(line[cut:])
        contents[-1].append(number)
        number += 1
        time.sleep(rng.random() * 0.004)
    rotated = folder / f"sales-{len(contents)}.jsonl"
    if rng.random() < 0.5:
        path.rename(rotated)
    else:
        shutil.copyfile(path, rotated)
        os.truncate(path, 0)
print(json.dumps(contents))
"""


@pytest.fixture
def till(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Give a till that sells until a file named `stop` appears."""
    folder = tmp_path / "till"
    folder.mkdir()
    process = subprocess.Popen([sys.executable, "-c", TILL, str(folder), "7"], stdout=subprocess.PIPE, text=True)
    yield process
    process.kill()
    process.communicate()


def _start(config: Path, log: Path) -> subprocess.Popen[bytes]:
    """Start the daemon and wait until it runs."""
    runs = log.read_text().count('"agent_started"') if log.exists() else 0
    command = [sys.executable, "-c", "from agent.cli import main; main()", "run", "--config", str(config)]
    with log.open("ab") as output:
        daemon = subprocess.Popen(command, stderr=output, stdout=output, env=environment())
    until(lambda: log.read_text().count('"agent_started"') > runs, "it runs")
    return daemon


def _kill(daemon: subprocess.Popen[bytes]) -> None:
    daemon.kill()
    daemon.wait()


def test_kills_while_a_till_appends_and_rotates_lose_and_double_nothing(
    till: subprocess.Popen[str], tmp_path: Path, server: FakeServer
) -> None:
    """SIGKILL at random moments; whatever the file was called when, its lines keep their order."""
    rng, log = random.Random(3), tmp_path / "daemon.log"
    config = write_config(
        tmp_path,
        server.url,
        folder={"path": ""},
        tail={"path": str(tmp_path / "till")},
        batch={"age_max_s": 0.05},
        heartbeat={"interval_s": 0.2},
    )
    for _ in range(KILLS):
        daemon = _start(config, log)
        threading.Event().wait(rng.random() * 0.5)
        _kill(daemon)
    (tmp_path / "stop").touch()
    contents = json.loads(till.communicate(timeout=20)[0])
    made = sum(map(len, contents))
    daemon = _start(config, log)
    try:
        until(lambda: len(server.numbers()) >= made, "all sales arrive")
    finally:
        _kill(daemon)
    taken = server.numbers()
    places = {number: place for place, number in enumerate(taken)}

    assert made > 500
    assert len(contents) > 30
    assert sorted(taken) == list(range(made))
    for content in contents:
        assert [places[number] for number in content] == sorted(places[number] for number in content)
    assert not list((tmp_path / "spool").glob("rejected/*"))
    assert "Traceback" not in log.read_text()
