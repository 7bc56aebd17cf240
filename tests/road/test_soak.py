"""A fleet of simulated devices against one server: the short form of `make soak`."""

import os
import random
from dataclasses import fields, replace
from datetime import UTC, datetime

import pytest
from simulated_device import SimulatedDevice
from soak import Held, Plan, Soaked, soak

PLAN = Plan(
    seed=int(os.environ.get("SCOUT_TEST_SEED") or random.SystemRandom().getrandbits(32)),
    devices=200,
    seconds=16.0,
    sale_every_s=3.0,
    seal_after_s=2.0,
    heartbeat_every_s=3.0,
    drain_s_max=120.0,
)


@pytest.fixture(scope="module")
def soaked() -> Soaked:
    """Run the fleet once."""
    print(f"\nSCOUT_TEST_SEED={PLAN.seed} replays the tills")
    soaked = soak(PLAN)
    print(soaked.table())
    return soaked


def test_a_fleet_is_served_without_an_error_and_every_sale_is_accounted_for(soaked: Soaked) -> None:
    """Devices that go offline, reboot and send things twice lose nothing and double nothing, to the cent."""
    assert soaked.problems() == []


@pytest.mark.parametrize("figure", [field.name for field in fields(Held) if field.name != "etl_p50_s"])
def test_a_warehouse_that_is_off_by_one_is_noticed(soaked: Soaked, figure: str) -> None:
    """A soak that can't fail proves nothing."""
    off = 1000 if figure in ("etl_max_s", "etl_p95_s") else 1
    held = replace(soaked.held, **{figure: getattr(soaked.held, figure) + off})

    assert len(replace(soaked, held=held).problems()) == 1


@pytest.mark.parametrize("answer", [("bucket", 500), ("heartbeat", 0), ("endpoint", 503), ("bucket", 429)])
def test_an_answer_that_no_device_should_get_is_noticed(soaked: Soaked, answer: tuple[str, int]) -> None:
    """Neither an error, nor a broken connection, nor being told to wait without how long."""
    kind, status = answer
    seen = replace(soaked.seen, answers=[*soaked.seen.answers, (kind, status, 1.0, None)])

    assert len(replace(soaked, seen=seen).problems()) == 1


def test_a_till_sells_the_same_however_late_anyone_looks() -> None:
    """What is sold, and what is sealed from it, follows from the seed alone."""
    plan, began = replace(PLAN, seed=7, seconds=600.0), datetime(2026, 11, 25, 10, tzinfo=UTC)
    looks_s = {"each second": [float(second) for second in range(700)], "once": [700.0]}
    sealed = {}
    for name, moments_s in looks_s.items():
        devices = [SimulatedDevice(f"load-{number}", plan, began) for number in range(20)]
        for device in devices:
            for moment_s in moments_s:
                device.advance(moment_s)
        assert sum(device.reboots for device in devices) > 0
        sealed[name] = [(device.sold, list(device.batches)) for device in devices]

    assert sealed["each second"] == sealed["once"]
    assert all(batches for _, batches in sealed["once"])
