"""The stand-in for curl says what curl says, so that a machine without it runs the docs all the same."""

import shutil
import subprocess
from pathlib import Path

import pytest
from agent_kit import a_server

STAND_IN = Path(__file__).with_name("stand_ins") / "curl"
POST = ("-sS", "-X", "POST", "-H", "Content-Type: application/json", "-H", "Idempotency-Key: till-7")


@pytest.mark.parametrize("body", [("-d", '{"a":1}'), ("--data-binary", "@-")])
def test_the_stand_in_for_curl_sends_and_prints_as_curl_does(body: tuple[str, str]) -> None:
    """The same request, and the same answer on stdout, whatever its status."""
    programs = [str(STAND_IN), *([found] if (found := shutil.which("curl")) else [])]
    said, heard = [], []
    with a_server() as server:
        server.answer = lambda _path, _body: (400, b'{"error":"no"}')
        for program in programs:
            done = subprocess.run(
                [program, *POST, *body, f"{server.url}/ingest-transaction"],
                input=b'{"a":1}',
                capture_output=True,
                check=True,
            )
            said.append(done.stdout)
        heard = [(path, headers["Idempotency-Key"], sent) for path, headers, sent in server.requests]

    assert set(said) == {b'{"error":"no"}'}
    assert heard == [("/ingest-transaction", "till-7", b'{"a":1}')] * len(programs)


def test_the_stand_in_refuses_what_it_does_not_know() -> None:
    """Rather than to do something else."""
    assert (
        subprocess.run([STAND_IN, "--retry", "3", "http://127.0.0.1"], capture_output=True, check=False).returncode == 2
    )
