"""What happens on a page between two commands: `<!-- now: … -->` in its words, and here how it is brought about.

Each returns when it has happened: the next command may rely on it.
"""

import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import httpx
from house import PROGRAMS, stop
from stage import Play

WRONG_CLOCK = Path(__file__).resolve().parents[1] / "road" / "wrong_clock_agent.py"
SOLD_MEANWHILE = 20
A_MINUTE_LATER = """
    update scout_edge.awaited
    set asked_at = asked_at - interval '2 minutes', checked_at = checked_at - interval '2 minutes'
"""


def _all_is_delivered(play: Play) -> None:
    """Every sale that was handed over is taken, has its receipt, and is in gold."""
    play.shop.wait_for(lambda: not any(play.shop.inbox.rglob("*.json")), "files were not taken")
    play.shop.wait_until_settled()
    play.wait_for_gold()


def _a_sale_is_delivered(play: Play) -> None:
    """The way is open, and the agent runs."""
    if play.shop.process is None or play.shop.process.poll() is not None:
        play.shop.start()
    play.sell(1)
    _all_is_delivered(play)


def _the_agent_runs(play: Play) -> None:
    """As the package starts it once it is enrolled; it has called home."""
    play.shop.start()
    _a_sale_is_delivered(play)


def _an_object_was_uploaded(play: Play) -> None:
    """By the bucket, where an agent begins: another page's outage may have sent it to the endpoint for a while."""
    stop([play.shop.process])
    _the_agent_runs(play)
    assert play.ask("select bucket from scout_bronze.files order by file_id desc limit 1") != "endpoint"


def _an_hour_passes(play: Play) -> None:
    """Since the device was heard last with the card before."""
    play.do(
        "update scout_edge.heads set last_heard_at = last_heard_at - interval '61 minutes' where device_id = %s",
        play.device,
    )
    play.wait_until_reported()


def _it_was_silent_for_three_days(play: Play) -> None:
    """It is off; and it has called home every hour before."""
    play.shop.kill()
    play.do("update scout_edge.heartbeats set heard_at = now() - interval '3 days' where device_id = %s", play.device)


def _a_line_was_refused(play: Play) -> None:
    """By the server, of a device that posts by itself."""
    token = play.house.server.token_for(play.device)
    answer = httpx.post(
        f"{play.house.server.base_url}/ingest-transaction",
        content=b'{"transaction_id":"good","peso_value":1}\nno sale\n',
        headers={"Authorization": f"Bearer {token}", "Content-Type": "application/jsonl"},
        trust_env=False,
    )
    assert len(answer.json()["rejected"]) == 1


def _the_card_dies(play: Play) -> None:
    """It held sales that the server has heard of and not received. A new card is in."""
    play.agent("pause", "--for", "1h")
    play.sell(SOLD_MEANWHILE)
    play.wait_until_reported()
    play.shop.kill()
    shutil.rmtree(play.shop.spool)
    play.shop.spool.mkdir()
    (play.shop.config.with_name("token")).write_text("")


def _the_pi_is_stolen(play: Play) -> None:
    """The thief has config, key, token and spool; what is here is a new Pi."""
    play.shop.kill()
    shutil.copytree(play.shop.config.parent, play.folder / "thief")
    shutil.rmtree(play.shop.spool)
    play.shop.spool.mkdir()
    (play.shop.config.with_name("token")).write_text("")


def _the_thief_is_refused(play: Play) -> None:
    """Neither the token nor the key of the stolen card opens anything."""
    home = play.shop.config.parent
    stolen = play.folder / "thief"
    config = stolen / "config.toml"
    config.write_text(config.read_text().replace(str(home), str(stolen)).replace(play.shop.address, "127.0.0.1:0"))
    agent = subprocess.Popen([PROGRAMS / "scout-agent", "run", "--config", config], stderr=subprocess.DEVNULL)
    try:
        (stolen / "inbox" / "thief.json").write_text('{"transaction_id":"made up","peso_value":1000000}')
        play.shop.wait_for(lambda: play.fault_kind(config) == "credentials", "the thief was not refused")
    finally:
        stop([agent])
    assert play.ask("select count(*) from scout_bronze.transactions_raw where payload like '%made up%'") == 0


def _the_clock_is_a_year_behind(play: Play) -> None:
    """And no time server sets it."""
    stop([play.shop.process])
    with play.shop.log.open("ab") as log:
        play.shop.process = subprocess.Popen([sys.executable, WRONG_CLOCK, play.shop.config], stdout=log, stderr=log)
    play.shop.wait_for(lambda: play.has_problem("clock_wrong"), "nobody noticed the clock")


def _a_time_server_sets_the_clock(play: Play) -> None:
    stop([play.shop.process])
    play.shop.start()
    play.shop.wait_for(lambda: play.shop.status()["exit_status"] == 0, "not well again")


def _the_card_is_full(play: Play) -> None:
    """A tebibyte must stay free, and isn't: the next sale is refused."""
    play.reconfigure("[batch]", "disk_free_bytes_min = 1099511627776\n[batch]")
    play.shop.drop("full.json", b'{"transaction_id":"full","store_id":"102","peso_value":1}', renamed=True)
    play.shop.wait_for(lambda: play.has_problem("intake_refused"), "it took the sale")


def _there_is_room_again(play: Play) -> None:
    play.reconfigure("disk_free_bytes_min = 1099511627776\n", "")
    _all_is_delivered(play)
    play.shop.wait_for(lambda: play.shop.status()["exit_status"] == 0, "not well again")


def _there_is_a_project(play: Play) -> None:
    """A database of its own, in the server's cluster."""
    play.do("create database project")


def _the_till_sells_on(play: Play) -> None:
    """And the device has its receipts."""
    play.sell(SOLD_MEANWHILE)
    _all_is_delivered(play)


def _devices_send_what_it_lacks(play: Play) -> None:
    """The server calls absent only what it looked for in vain for a minute: here that is over at once."""
    play.shop.wait_for(lambda: play.shop.unsettled() > 0, "nothing was awaited again")

    def is_settled() -> bool:
        play.do(A_MINUTE_LATER)
        return play.shop.unsettled() == 0

    play.shop.wait_for(is_settled, "nothing was sent again")
    play.wait_for_gold()


def _the_server_is_gone(play: Play) -> None:
    """As in a power cut. The device has noticed."""
    play.house.server.kill()
    play.sell(SOLD_MEANWHILE)
    play.shop.wait_for(lambda: play.fault_kind(play.shop.config) == "wait", "it did not notice")


def _the_server_is_back(play: Play) -> None:
    play.house.server.start()


def _the_line_is_down(play: Play) -> None:
    """The server's address leads nowhere."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        play.reconfigure(play.house.server.base_url, f"http://127.0.0.1:{taken.getsockname()[1]}")
    play.sell(SOLD_MEANWHILE)
    play.shop.kill()


def _the_line_is_there_again(play: Play) -> None:
    play.shop.config.write_text(play.config_at_first)
    play.shop.start()


DIRECTIONS: Mapping[str, Callable[[Play], None]] = {
    "all is delivered": _all_is_delivered,
    "a sale is delivered": _a_sale_is_delivered,
    "the agent runs": _the_agent_runs,
    "an object was uploaded": _an_object_was_uploaded,
    "an hour passes": _an_hour_passes,
    "it was silent for three days": _it_was_silent_for_three_days,
    "a line was refused": _a_line_was_refused,
    "the card dies": _the_card_dies,
    "the Pi is stolen": _the_pi_is_stolen,
    "the thief is refused": _the_thief_is_refused,
    "the clock is a year behind": _the_clock_is_a_year_behind,
    "a time server sets the clock": _a_time_server_sets_the_clock,
    "the card is full": _the_card_is_full,
    "there is room again": _there_is_room_again,
    "there is a project": _there_is_a_project,
    "the till sells on": _the_till_sells_on,
    "devices send what it lacks": _devices_send_what_it_lacks,
    "the server is gone, and the till sells on": _the_server_is_gone,
    "the server is back": _the_server_is_back,
    "the line is down, and the till sells on": _the_line_is_down,
    "the line is there again": _the_line_is_there_again,
}
