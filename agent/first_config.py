"""The config that an enrolment writes: what is known, and beside it, as comments, the keys that are worth knowing.

May be relied on: what is given is in the text as given, laid over what a config has otherwise: the usual folder too.
"""

import json
from collections.abc import Iterator, Mapping

TILL_FOLDER = "/var/lib/till/sales"
"""Where the service may write, and where the package has the till put its files."""

Sections = Mapping[str, Mapping[str, object]]

_HEAD = """# Written by `scout-agent enrol`. /usr/share/doc/scout-agent/config.example.toml explains every key.
# After a change: sudo scout-agent config check, then sudo systemctl restart scout-agent
"""
_WORTH_KNOWING: dict[str, dict[str, str]] = {
    "device": {},
    "server": {},
    "folder": {"path": '"/var/lib/till/sales"     # where the till drops files'},
    "tail": {"path": '"/var/log/till"           # where the till appends to *.jsonl files'},
    "local_http": {"listen": '"127.0.0.1:8710"        # where the till posts sales to'},
    "spool": {"bytes_max": "0                    # of the disk; 0 follows from what is free"},
    "batch": {},
    "upload": {
        "rate_kbit_max": "0                # of the shop's line; 0 is as fast as it can",
        "quiet_hours": '"22:00-06:00"      # no uploads then, in local time',
        "proxy": '"http://proxy.example.com:3128"',
        "ca_file": '"/etc/scout-agent/authority.pem"  # a server with an authority of its own',
    },
    "heartbeat": {},
}
"""An example of each key, and what it is for."""


def first_config(device_id: str, server: str, spool_folder: str, given: Sections) -> str:
    """Write the text of a config. `given`: sections of it that somebody chose."""
    sections = {name: dict(keys) for name, keys in given.items()}
    sections["device"] = {"id": device_id}
    sections["server"] = {"base_url": server} | sections.get("server", {})
    sections["spool"] = {"directory": spool_folder} | sections.get("spool", {})
    sections["folder"] = {"path": TILL_FOLDER} | sections.get("folder", {})
    names = [*_WORTH_KNOWING, *(name for name in sections if name not in _WORTH_KNOWING)]
    texts = ("\n".join(_section(name, sections.get(name, {}))) for name in names)
    return "\n".join([_HEAD, *(f"{text}\n" for text in texts if text)])


def _section(name: str, keys: Mapping[str, object]) -> Iterator[str]:
    """One section's lines; all of them comments when nothing of it is chosen."""
    examples = {key: text for key, text in _WORTH_KNOWING.get(name, {}).items() if key not in keys}
    if keys or examples:
        yield f"[{name}]" if keys else f"# [{name}]"
    for key, value in keys.items():
        # A JSON string, number or truth is a TOML one.
        yield f"{key} = {json.dumps(value, ensure_ascii=False)}"
    for key, example in examples.items():
        yield f"# {key} = {example}"
