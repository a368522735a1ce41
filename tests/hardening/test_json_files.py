"""JSON files: what was written comes back, and nothing else does."""

import json
import math

import pytest
from damage import damaged, damaged_json, refusing
from hypothesis import given, settings
from hypothesis import strategies as st

from rd_tf.storage import InputError, read_json, read_manifest, write_json

DOCUMENT = {"a": {"b": 1, "c": [1.5, -2e300, None]}, "name": "é", "kept": True, "rows": 10**25}
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return tmp_path_factory.mktemp("json") / "some.json"


def is_finite(value):
    if isinstance(value, dict | list):
        return all(map(is_finite, value.values() if isinstance(value, dict) else value))
    return not isinstance(value, float) or math.isfinite(value)


@settings(max_examples=20)
@given(value=VALUES)
def test_what_was_written_comes_back(path, value):
    write_json(path, value)
    assert read_json(path) == value


@settings(max_examples=150)
@given(data=st.data())
def test_a_damaged_file_is_what_it_says_or_refused(path, data):
    content = data.draw(damaged_json(DOCUMENT).map(str.encode) | damaged(json.dumps(DOCUMENT).encode()))
    path.write_bytes(content)
    with refusing(path):
        value = read_json(path)
        assert value == json.loads(content)
        assert is_finite(value)


@settings(max_examples=100)
@given(data=st.data())
def test_a_manifest_has_what_is_required_of_it_or_is_refused(path, data):
    path.write_text(data.draw(damaged_json(DOCUMENT)))
    required = {"a.b": int, "a.c": list, "name": str, "kept": bool}
    with refusing(path):
        manifest = read_manifest(path, required)
        kinds = (type(manifest["a"]["b"]), type(manifest["a"]["c"]), type(manifest["name"]), type(manifest["kept"]))
        assert kinds == (int, list, str, bool)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[" * 100_000, "nested too deeply"),
        ("9" * 5000, r"is damaged \(Exceeds the limit"),
        ('{"map": NaN}', "NaN is no finite number"),
        ('{"map": 1e400}', "1e400 is no finite number"),
        ("[]", "no JSON object"),
        ('{"rows": true}', "no usable 'rows'"),
    ],
)
def test_what_python_would_take_or_stumble_over_is_refused(path, content, message):
    path.write_text(content)
    with pytest.raises(InputError, match=message):
        read_manifest(path, {"rows": int})


def test_a_directory_in_place_of_a_file_is_refused(path):
    with pytest.raises(InputError, match=r"cannot be read \(Is a directory\)"):
        read_json(path.parent)
