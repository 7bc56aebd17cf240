"""What a technician tells the daemon: whole, in order, and without harm when it is rubbish."""

import os
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from agent.errors import LocalFault
from agent.orders import ORDER_BYTES_MAX, Orders, PauseOrder, ReplayOrder, SendOrder


@pytest.fixture
def orders(tmp_path: Path) -> Orders:
    """Return the orders of a spool, with their folder made."""
    made = Orders(tmp_path)
    made.prepare()
    return made


def test_an_order_is_taken_once(orders: Orders) -> None:
    """And nothing is left of it."""
    orders.give(ReplayOrder(("a", "b")))
    assert orders.is_open(ReplayOrder)
    with orders.taken(ReplayOrder) as order:
        assert order == ReplayOrder(("a", "b"))
    assert not orders.is_open(ReplayOrder)
    assert orders.take(ReplayOrder) is None
    assert list(orders.folder.iterdir()) == []


def test_of_each_kind_the_last_order_counts(orders: Orders) -> None:
    """A pause that is taken back at once is none."""
    orders.give(PauseOrder(60.0))
    orders.give(SendOrder("1"))
    orders.give(PauseOrder(0.0))

    assert orders.take(PauseOrder) == PauseOrder(0.0)
    assert orders.take(SendOrder) == SendOrder("1")


def test_an_order_that_was_not_carried_out_is_taken_again(orders: Orders) -> None:
    """The daemon may be killed in between."""
    orders.give(PauseOrder(60.0))
    with pytest.raises(KeyboardInterrupt), orders.taken(PauseOrder):
        raise KeyboardInterrupt

    assert orders.is_open(PauseOrder)
    assert orders.take(PauseOrder) == PauseOrder(60.0)


def test_an_order_that_comes_while_one_is_carried_out_is_not_lost(orders: Orders) -> None:
    """It is the next one."""
    orders.give(PauseOrder(60.0))
    with orders.taken(PauseOrder):
        orders.give(PauseOrder(0.0))

    assert orders.take(PauseOrder) == PauseOrder(0.0)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{}",
        b"[]",
        b'{"for_s":-1}',
        b'{"for_s":NaN}',
        b'{"for_s":1e999}',
        b'{"for_s":"1"}',
        b"\xff",
        b"[" * 100_000,
    ],
)
def test_rubbish_is_removed_and_logged(orders: Orders, content: bytes) -> None:
    """A technician's typing error ends nothing."""
    (orders.folder / "pause").write_bytes(content)
    with capture_logs() as logs:
        assert orders.take(PauseOrder) is None

    assert [log["event"] for log in logs] == ["order_not_understood"]
    assert not orders.is_open(PauseOrder)


@pytest.mark.parametrize("kind", ["fifo", "link", "long"])
def test_nothing_in_the_shared_folder_holds_up_the_loop(orders: Orders, tmp_path: Path, kind: str) -> None:
    """A pipe would block, a link lead elsewhere, a long file fill the memory."""
    place = orders.folder / "pause"
    if kind == "fifo":
        os.mkfifo(place)
    elif kind == "link":
        (tmp_path / "elsewhere").write_text('{"for_s":60}')
        place.symlink_to(tmp_path / "elsewhere")
    else:
        place.write_bytes(b'{"for_s":60}' + b" " * 2 * ORDER_BYTES_MAX + b"}")

    assert orders.take(PauseOrder) is None
    assert not orders.is_open(PauseOrder)
    assert kind != "link" or (tmp_path / "elsewhere").exists()


def test_a_folder_in_an_orders_place_does_no_harm(orders: Orders) -> None:
    """It is not removed, whatever it holds; it is no order either."""
    (orders.folder / "pause").mkdir()
    (orders.folder / "pause" / "file").touch()
    for _ in range(2):
        assert orders.take(PauseOrder) is None


def test_without_the_folder_the_technician_hears_what_to_do(tmp_path: Path) -> None:
    """It is the agent's to make, or it would be owned by whoever comes first."""
    with pytest.raises(LocalFault, match=r"control does not exist: start the agent once"):
        Orders(tmp_path).give(PauseOrder(1.0))


def test_where_the_folder_cannot_be_made_all_else_works(tmp_path: Path) -> None:
    """A full disk costs orders, not sales."""
    (tmp_path / "spool").touch()
    orders = Orders(tmp_path / "spool")
    with capture_logs() as logs:
        orders.prepare()

    assert [log["event"] for log in logs] == ["no_orders"]
    assert orders.take(PauseOrder) is None


@pytest.mark.root
def test_a_member_of_the_agents_group_may_give_orders_and_nobody_else() -> None:
    """Without root, and whatever the umask; the agent can read and remove what they leave."""
    import tempfile  # noqa: PLC0415

    agent, technician, stranger = 54_101, 54_102, 54_103

    def act_as(user: int, groups: list[int]) -> None:
        os.setgroups(groups)
        os.setegid(user)
        os.seteuid(user)

    def become_root() -> None:
        os.seteuid(0)
        os.setegid(0)
        os.setgroups([0])

    with tempfile.TemporaryDirectory() as name:
        spool = Path(name) / "spool"
        Path(name).chmod(0o755)
        spool.mkdir(mode=0o750)
        os.chown(spool, agent, agent)
        orders = Orders(spool)
        umask = os.umask(0o077)
        try:
            act_as(agent, [agent])
            orders.prepare()
            become_root()
            act_as(technician, [technician, agent])
            orders.give(PauseOrder(60.0))
            become_root()
            act_as(agent, [agent])
            with orders.taken(PauseOrder) as order:
                assert order == PauseOrder(60.0)
            assert not orders.is_open(PauseOrder)
            become_root()
            act_as(stranger, [stranger])
            with pytest.raises(LocalFault, match="agent's group"):
                orders.give(PauseOrder(60.0))
        finally:
            become_root()
            os.umask(umask)
