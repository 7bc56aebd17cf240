"""Whether what is printed looks as a page shows it: the words and their order, not the numbers, times and names.

A line `…` stands for any lines, and `…` within a line for any words.
"""

import re

_MASKS = (
    (r"\x1b\[[0-9;]*m", ""),
    (r"\b[0-9A-HJKMNP-TV-Z]{4}(-[0-9A-HJKMNP-TV-Z]{4}){3}\b", "CODE"),
    (r"\beyJ[\w.-]+", "TOKEN"),
    (r"\b[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\b", "UUID"),
    (r"\b[0-9a-f]{16,64}\b", "HASH"),
    (r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d(:\d\d(\.\d+)?)?( UTC|Z|[+-]\d\d(:?\d\d)?)?", "TIME"),
    (r"\d{4}-\d\d-\d\d", "DAY"),
    (r"\d[\d,]*(\.\d+)?", "#"),
    (r"# (seconds|minutes|hours|days) ago", "# ago"),
    (r"# (bytes|kB|MB|GB)\b", "# of size"),
    (r"# (is|are|sale|sales|file|files|device|devices)\b", "# of them"),
    (r"[─━═]+", "─"),
    (r"\s+", " "),
)


def unlike(shown: str, printed: str) -> str:
    """How what was printed differs from what is shown; "" when it looks so."""
    wanted, found = _lines(shown), _lines(printed)
    assert wanted, "nothing is shown"
    if _matches(wanted, found):
        return ""
    missing = [line for line in wanted if line != "…" and not any(_is_like(line, one) for one in found)]
    return f"not printed: {missing}; printed:\n{printed}" if missing else f"in another order, or with more:\n{printed}"


def differs(shown: str, printed: str) -> str:
    """How an answer of the database differs from what is shown, blanks aside; "" when it doesn't."""
    wanted, found = ([line.split() for line in text.splitlines() if line.strip()] for text in (shown, printed))
    assert wanted, "nothing is shown"
    return "" if wanted == found else f"the database answered:\n{printed}"


def _matches(wanted: list[str], found: list[str]) -> bool:
    if not wanted:
        return not found
    if wanted[0] == "…":
        return any(_matches(wanted[1:], found[skipped:]) for skipped in range(len(found) + 1))
    return bool(found) and _is_like(wanted[0], found[0]) and _matches(wanted[1:], found[1:])


def _lines(text: str) -> list[str]:
    """Masked, without empty lines; what was wrapped below its label is one line again."""
    text = re.sub(r"\n {14,}(?=\S)", " ", text)
    for pattern, word in _MASKS:
        text = "\n".join(re.sub(pattern, word, line) for line in text.splitlines())
    return [line.strip() for line in text.splitlines() if line.strip()]


def _is_like(wanted: str, line: str) -> bool:
    return re.fullmatch(".*".join(re.escape(part.strip()) for part in wanted.split("…")), line) is not None
