"""A device that is well, to be changed in one thing at a time."""

from dataclasses import replace
from typing import Any

from agent.board import DaemonFacts, ReportedFault
from agent.verdict import Status

DAEMON = DaemonFacts(pid=1, version="1.0", started_at="2027-03-01T00:30:00.000Z")
FAULT = ReportedFault("wait", "sales.example.com: can't connect", "nothing: it tries again", "2027-03-01T02:00:00.000Z")
WELL = Status(
    seen_at="2027-03-01T02:30:00.000Z",
    version="1.0",
    device="pi-05",
    running=True,
    daemon=DAEMON,
    config_problem=None,
    spool_problem=None,
    token_problem=None,
    rejected_in=("/var/lib/till/sales/rejected",),
    rejected_files=0,
    clock_synced=True,
    token_expires_at="2027-03-25T00:00:00.000Z",
    token_days_left=23.9,
    disk_free_bytes=20_000_000_000,
    spool_bytes_max=2_000_000_000,
    spool_version=1,
    epoch="0123456789abcdef",
    rows_last_hour=120,
    last_accepted_at="2027-03-01T02:29:00.000Z",
    last_accepted_by="bucket",
    last_settled_at="2027-03-01T02:29:30.000Z",
    spool_bytes=12_300_000,
    hours_to_full=5000.0,
)


def told(**facts: Any) -> Status:
    """A device that is well but for what its daemon says."""
    return replace(WELL, daemon=replace(DAEMON, **facts))
