"""A whole arm64 machine loses its power while tills hand over sales: every one that was acknowledged arrives, once."""

import os
import random
from collections.abc import Collection

import pytest
from acknowledged import Acknowledged
from agent_kit import until
from cards import Installed
from emulated import Guest
from house import Server, stop
from pi import arrived, enrol_in_a_hurry, wait_until_arrived, wait_until_drained

pytestmark = [pytest.mark.guest, pytest.mark.root, pytest.mark.timeout(3600)]

CUTS = int(os.environ.get("SCOUT_TEST_CUTS", "3"))
SEED = int(os.environ.get("SCOUT_TEST_SEED") or random.SystemRandom().getrandbits(32))
WAYS = ("folder", "add", "local_http")
POSTS = (20, 400)
"""A life is cut when so many sales more were posted, at random between these."""

SLOW_S = 300.0


def _sell_until(guest: Guest, acknowledged: Acknowledged, life: int, posts: int, ways: Collection[str] = WAYS) -> None:
    """Let the tills sell until each of these ways had something acknowledged in this life, and so many were posted."""
    before = acknowledged.counts
    guest.run(f"systemd-run --quiet --unit tills python3 /root/tills.py {life} {acknowledged.port}")

    def sold() -> bool:
        now = acknowledged.counts
        return all(now[way] > before[way] for way in ways) and now["local_http"] >= before["local_http"] + posts

    until(sold, "the tills sell", SLOW_S)


def test_no_cut_loses_or_doubles_what_was_acknowledged(
    installed: Installed,
    guest: Guest,
    server: Server,
    acknowledged: Acknowledged,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """By folder, by command and by post; every other life without a server, so that the spool alone has the sales."""
    rng = random.Random(SEED)
    boots_s = [guest.power_on()]
    enrol_in_a_hurry(guest, server)
    for life in range(CUTS):
        is_online = bool(life % 2)
        if not is_online:
            stop([server.process])
        _sell_until(guest, acknowledged, life, rng.randint(*POSTS))
        guest.cut_power()
        if not is_online:
            server.start()
        boots_s.append(guest.power_on())
    wait_until_arrived(guest, server, acknowledged.all)
    wait_until_drained(guest)
    found = arrived(server)
    lost = acknowledged.all - set(found.times)
    with capsys.disabled():
        print(f"\n{installed.suite}, {CUTS} cuts, SCOUT_TEST_SEED={SEED}: acknowledged {dict(acknowledged.counts)}")
        print(f"  in bronze {found.times.total()}, {len(lost)} lost, {len(found.twice)} twice; boots in s:", end=" ")
        print(", ".join(f"{boot_s:.0f}" for boot_s in boots_s))

    assert CUTS > 0
    assert all(acknowledged.counts[way] for way in WAYS)
    assert (lost, found.twice) == (set(), set())
    assert (found.gaps, found.forks, found.quarantined) == (0, 0, 0)


def test_the_same_cut_is_seen_to_lose_where_the_spool_does_not_flush(
    installed: Installed,
    guest: Guest,
    server: Server,
    acknowledged: Acknowledged,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Else the test above would see nothing."""
    guest.power_on()
    enrol_in_a_hurry(guest, server)
    schema = "/usr/lib/scout-agent/lib/agent/schema.py"
    guest.run(f"sed -i 's/synchronous = full/synchronous = off/' {schema}; grep 'synchronous = off' {schema}")
    guest.run("systemctl restart scout-agent; sync")
    stop([server.process])
    _sell_until(guest, acknowledged, 0, POSTS[0], ["local_http"])
    guest.cut_power()
    server.start()
    guest.power_on()
    wait_until_drained(guest)
    lost = acknowledged.all - set(arrived(server).times)
    with capsys.disabled():
        print(f"\n{installed.suite}, control: {len(lost)} of {len(acknowledged.all)} acknowledged are lost")

    assert acknowledged.all
    assert lost
