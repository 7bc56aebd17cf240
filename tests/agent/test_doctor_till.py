"""The doctor asks the door that tills post to."""

import http.server
import threading
from pathlib import Path

from doors import a_door

from agent.doctor.till import check_local_http
from agent.errors import LocalFault


def test_a_door_that_takes_sales_is_well_and_nothing_is_stored(tmp_path: Path) -> None:
    """By TCP and by socket."""
    with a_door(tmp_path, socket=str(tmp_path / "door.sock")) as door:
        places = door.source.addresses
        outcome = check_local_http(places[0], str(tmp_path / "door.sock"))
        stored = door.stored()

    assert (outcome.result, stored) == ("ok", [])
    assert all(place in outcome.message for place in (places[0], "door.sock"))


def test_a_door_that_can_store_nothing_is_broken(tmp_path: Path) -> None:
    """It listens, which alone helps nobody."""

    def fail(_payloads: object) -> None:
        raise LocalFault("the disk is in trouble.")

    with a_door(tmp_path) as door:
        door.spool.before = fail
        outcome = check_local_http(door.source.addresses[0], "")
        del door.spool.before

    assert (outcome.result, "can take no sale now" in outcome.message) == ("broken", True)


def test_nobody_or_somebody_else_at_the_door_is_broken(tmp_path: Path) -> None:
    """Another program that has the port may well answer."""

    class Greeting(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"hello")

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with http.server.HTTPServer(("127.0.0.1", 0), Greeting) as other:
        place = f"127.0.0.1:{other.server_port}"
        answering = threading.Thread(target=other.handle_request)
        answering.start()
        strange = check_local_http(place, "")
        answering.join()
    gone = check_local_http(place, "")
    no_socket = check_local_http("", str(tmp_path / "none.sock"))

    assert (strange.result, "another program" in strange.message) == ("broken", True)
    assert all(outcome.result == "broken" and "does not answer" in outcome.message for outcome in (gone, no_socket))


def test_a_device_without_a_door_needs_none() -> None:
    """Most have files only."""
    assert check_local_http("", "").message == "not used"
