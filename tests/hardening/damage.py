"""Damage as hypothesis draws it, to bytes and to JSON, and what must come of it."""

import contextlib
import copy
import json
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from rd_tf.storage import InputError

# What editors, spreadsheets, other systems and broken disks leave in text files.
TEXT_SCRAPS = (
    *(b"\0", b"\x01", b"\xff", b"\xef\xbb\xbf", "é".encode(), "é".encode("latin-1"), b"\x85", "\u2028".encode()),
    *(b"\n", b"\r\n", b"\r", b'"', b'""', b",", b"\t", b" ", b"\x0c", b"x" * 5000),
    *(b"nan", b"inf", b"1e400", b"-1", b"+5", b"7.5", b"9" * 25, b"1e-400", b"2012-01-01", b"2012-13-01"),
    *(b"0000-01-01", b"2012-01-01T24:00:00", b"2012-01-01T00:00:60Z", b"2012-01-01T00:00:00+99:99"),
)
_NUMBERS = (0, -1, 1, 2, 1.5, -0.0, 2**31, 2**63, 10**30, float("nan"), float("inf"), -float("inf"))
_VALUES = (
    None,
    True,
    False,
    "",
    "x",
    "\0",
    "\ud800",
    "0" * 64,
    [],
    {},
    [[[]]],
    {"a": {"b": None}},
    [1, "a"],
    *_NUMBERS,
)
# Not what json.dumps would write.
_FILES = ("", "{", "null", "[" * 100_000, '{"a":' * 100_000, "9" * 5000, '{"format": 1e400}', "\ufeff{}", "NaN", "\0")


@st.composite
def damaged(draw: st.DrawFn, content: bytes, scraps: Sequence[bytes] = ()) -> bytes:
    """A file's content after one to four accidents: bits flipped, bytes lost, doubled or put in, the end cut off."""
    data = bytearray(content)
    for _ in range(draw(st.integers(1, 4))):
        place = draw(st.integers(0, max(len(data) - 1, 0)))
        length = draw(st.integers(1, 8))
        accident = draw(st.sampled_from(("flip", "cut", "lose", "double", "put", "put")))
        if accident == "flip" and data:
            data[place] ^= 1 << draw(st.integers(0, 7))
        elif accident == "cut":
            del data[place:]
        elif accident == "lose":
            del data[place : place + length]
        elif accident == "double":
            data[place:place] = data[place : place + length]
        else:
            data[place:place] = draw(st.sampled_from(scraps) if scraps else st.binary(max_size=8))
    return bytes(data)


@st.composite
def damaged_json(draw: st.DrawFn, document: dict[str, Any]) -> str:
    """A JSON file after one or two of its values are gone, moved or another, or with something else in its place."""
    if draw(st.integers(0, 9)) == 0:
        return draw(st.sampled_from(_FILES))
    document = copy.deepcopy(document)
    for _ in range(draw(st.integers(1, 2))):
        places = list(_places(document))
        if not places:
            break
        holder, key = draw(st.sampled_from(places))
        accident = draw(st.sampled_from(("lose", "change", "change", "change", "shift", "swap")))
        value = holder[key]
        if accident == "lose":
            del holder[key]
        elif accident == "shift" and type(value) in (int, float):
            holder[key] = value + draw(st.sampled_from((-1, 1)))
        elif accident == "swap":
            other, other_key = draw(st.sampled_from(places))
            holder[key] = copy.deepcopy(other.get(other_key) if isinstance(other, dict) else other[other_key])
        else:
            holder[key] = copy.deepcopy(draw(st.sampled_from(_VALUES)))
    return json.dumps(document)


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    for key, inner in list(value.items() if isinstance(value, dict) else enumerate(value)):
        yield value, key
        if isinstance(inner, dict | list):
            yield from _places(inner)


class Refused:
    """Whether a block ended with an `InputError`, and what it said."""

    message = ""

    def __bool__(self) -> bool:
        return bool(self.message)


@contextlib.contextmanager
def refusing(*names: str | Path) -> Iterator[Refused]:
    """Lets a block end well or with an `InputError` whose one sentence holds one of the names, and in no other way."""
    refused = Refused()
    try:
        yield refused
    except InputError as error:
        refused.message = str(error)
        assert not names or any(str(name) in refused.message for name in names), refused.message
        assert "Traceback" not in refused.message
        assert len(refused.message) < 2000, refused.message
        # What a terminal shows of it.
        refused.message.encode("utf-8", "backslashreplace")
    except AssertionError:
        raise
    except Exception as error:
        # Hypothesis tells two failures apart by where they were raised, which then is always the reader.
        raise AssertionError("".join(traceback.format_exception(error))) from error
