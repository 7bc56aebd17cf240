"""The brake on wrong codes."""

from server.tries import ADDRESSES_MAX, Tries

MAX, WINDOW_S = 3, 60.0


def tries() -> Tries:
    """Three in a minute."""
    return Tries(MAX, WINDOW_S)


def test_an_address_may_be_wrong_so_often_and_then_again_as_its_tries_grow_old() -> None:
    """One at a time, as each of them leaves the window."""
    made = tries()
    begun = [made.begin("192.0.2.1", at_s) for at_s in (0.0, 10.0, 20.0, 30.0, 59.0, 60.0, 61.0)]

    assert begun == [0.0, 0.0, 0.0, 30.0, 1.0, 0.0, 9.0]


def test_what_was_right_costs_nothing() -> None:
    """However often."""
    made = tries()
    for at_s in range(20):
        assert made.begin("192.0.2.1", float(at_s)) == 0.0
        made.take_back("192.0.2.1")


def test_others_are_not_braked_for_it() -> None:
    """But who owns a block of addresses is one."""
    made = tries()
    for number in range(MAX):
        made.begin("192.0.2.1", 0.0)
        made.begin(f"2001:db8:0:1::{number}", 0.0)

    assert made.begin("192.0.2.2", 0.0) == 0.0
    assert made.begin("2001:db8:0:2::1", 0.0) == 0.0
    assert made.begin("2001:db8:0:1::ffff", 0.0) == WINDOW_S
    assert made.begin("::ffff:192.0.2.1", 0.0) == WINDOW_S


def test_what_is_remembered_is_bounded() -> None:
    """Who comes from everywhere fills no memory."""
    made = tries()
    for number in range(ADDRESSES_MAX + 100):
        made.begin(str(number), 0.0)

    assert len(made._tries) == ADDRESSES_MAX
