"""Hypothesis strategies for JSON as odd as senders write it: as text, because every byte of it is kept."""

from hypothesis import strategies as st

_CHARACTERS = st.characters(exclude_categories=["Cs"], exclude_characters='"\\' + "".join(map(chr, range(32))))
_ESCAPES = st.sampled_from(
    [r"\"", r"\\", r"\/", r"\b", r"\f", r"\n", r"\r", r"\t", r"\u0000", r"\u00F1", r"\ud83d\ude00"]
)

_SCALARS = ["null", "true", "false", "0", "-0", "150.50", "1e3", "1E-7", "-0.000", "123456789012345678901234567890"]

# Line breaks inside an object are the framing's subject; a record is one line.
_BLANKS_ON_A_LINE = st.text(" \t", max_size=2)
_BLANKS = st.text(" \t\r\n", max_size=3)


def strings() -> st.SearchStrategy[str]:
    """JSON strings with quotes, escapes and anything that Unicode has."""
    return st.lists(_CHARACTERS | _ESCAPES, max_size=8).map(lambda parts: f'"{"".join(parts)}"')


def _objects(
    members: st.SearchStrategy[str], blanks: st.SearchStrategy[str], keys: st.SearchStrategy[str]
) -> st.SearchStrategy[str]:
    member = st.tuples(blanks, keys, blanks, st.just(":"), blanks, members, blanks).map("".join)
    return st.lists(member, max_size=4).map(lambda written: "{" + ",".join(written) + "}")


def _values(blanks: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    def containers(members: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
        element = st.tuples(blanks, members, blanks).map("".join)
        arrays = st.lists(element, max_size=3).map(lambda written: "[" + ",".join(written) + "]")
        return arrays | _objects(members, blanks, strings())

    return st.recursive(st.sampled_from(_SCALARS) | strings(), containers, max_leaves=6)


# Few names, so that duplicate keys are usual.
_NAMES = st.sampled_from(['"a"', '"payload"', '"transaction_id"', '"ñ"', '"\\u0061"']) | strings()

OBJECTS_ON_A_LINE: st.SearchStrategy[bytes] = _objects(_values(_BLANKS_ON_A_LINE), _BLANKS_ON_A_LINE, _NAMES).map(
    str.encode
)
"""One JSON object without a line break."""

OBJECTS: st.SearchStrategy[bytes] = _objects(_values(_BLANKS), _BLANKS, _NAMES).map(str.encode)
"""One JSON object, perhaps over several lines."""
