"""A teacher cache, whatever happens to its files, gives the lists it was made of or is refused."""

import dataclasses
import hashlib
import io
import json
import pickle
import zipfile

import numpy as np
import pytest
from damage import damaged, damaged_json, refusing
from hypothesis import given, settings
from hypothesis import strategies as st

from rd_tf.data.teacher_lists import CacheKey, load_teacher_cache, write_teacher_cache
from rd_tf.storage import InputError

KEY = CacheKey("d" * 64, "test", 5, 1, "a" * 64, "e" * 64, "target")
ITEMS = (np.arange(12).reshape(4, 3) + 1).astype(np.int32)
SCORES = np.linspace(-2, 2, 12).reshape(4, 3).astype(np.float16)
NAMES = ["items.npy", "scores.npy", "manifest.json"]


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    path = tmp_path_factory.mktemp("caches") / "cache"
    with write_teacher_cache(path, KEY, rows=4, k=3) as store:
        store(0, ITEMS, SCORES)
    return path


@pytest.fixture(scope="module")
def contents(cache):
    return {name: (cache / name).read_bytes() for name in NAMES}


def check(cache, contents, **replaced):
    """Loads with some files' contents replaced: the lists are the original ones, or refused."""
    for name in NAMES:
        (cache / name).write_bytes(replaced.get(name.partition(".")[0], contents[name]))
    with refusing(cache) as refused:
        loaded = load_teacher_cache(cache, KEY, k=2)
        np.testing.assert_array_equal(loaded.items, ITEMS[:, :2])
        np.testing.assert_array_equal(loaded.scores, SCORES[:, :2])
        assert (loaded.items.dtype, loaded.scores.dtype) == (np.int32, np.float16)
    return refused


def npy(header, content=b""):
    head = f"{header}\n".encode()
    return b"\x93NUMPY\x01\x00" + len(head).to_bytes(2, "little") + head + content


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            npy("{'descr': '<i4', 'fortran_order': False, 'shape': (10000000000000000000000000000, 3)}"),
            "which an array",
        ),
        (npy("{'descr': '<i4', 'fortran_order': False, 'shape': (-4, -3)}", b"x" * 48), "an array of another kind"),
        (npy("{'descr': '<i4', 'fortran_order': True, 'shape': (4, 3)}", b"x" * 48), "an array of another kind"),
        (npy("{'descr': '|O', 'fortran_order': False, 'shape': (4, 3)}", b"x" * 96), "an array of another kind"),
        (npy("{'descr': '<i4', 'fortran_order': False, 'shape': (4, 3)}", b"x" * 47), "has 1"),
        (npy("[" * 5000), "is damaged"),
        (npy("'" + "x" * 60_000), "is damaged"),
        (b"\x93NUMPY\x02\x00\xff\xff\xff\xff" + b"x" * 100, "is damaged"),
        (b"\x93NUMPY\x07\x00\xff\xff\xff\xff" + b"x" * 100, "is damaged"),
        (b"PK\x03\x04", "is damaged"),
        (b"", "is damaged"),
    ],
)
def test_an_array_whose_header_says_what_the_file_is_not(cache, contents, content, message):
    manifest = json.loads(contents["manifest.json"])
    manifest["items_sha256"] = hashlib.sha256(content).hexdigest()
    refused = check(cache, contents, items=content, manifest=json.dumps(manifest).encode())
    assert message in refused.message


@settings(max_examples=150)
@given(data=st.data())
def test_a_damaged_manifest(cache, contents, data):
    document = json.loads(contents["manifest.json"])
    check(cache, contents, manifest=data.draw(damaged_json(document)).encode())


@settings(max_examples=200)
@given(data=st.data(), name=st.sampled_from(NAMES))
def test_damaged_bytes(cache, contents, data, name):
    check(cache, contents, **{name.partition(".")[0]: data.draw(damaged(contents[name]))})


def npy(array):
    content = io.BytesIO()
    np.save(content, array)
    return content.getvalue()


def archive():
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as file:
        file.writestr("items.npy", npy(ITEMS))
    return content.getvalue()


def header(text):
    """A file that begins as .npy does; the header is somebody's own."""
    text = text.encode()
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + ITEMS.tobytes()


class Trap:
    def __reduce__(self):
        return (pytest.fail, ("a pickle was read",))


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(pickle.dumps(Trap()), id="a pickle"),
        pytest.param(npy(np.array([[Trap()]], object)), id="objects"),
        pytest.param(archive(), id="an archive"),
        pytest.param(archive()[:-30], id="a part of an archive"),
        pytest.param(npy(ITEMS.astype(np.int64)), id="wider numbers"),
        pytest.param(npy(ITEMS.astype(">i4")), id="big-endian numbers"),
        pytest.param(npy(ITEMS.astype(np.float32)), id="floats"),
        pytest.param(npy(ITEMS[:3]), id="fewer rows"),
        pytest.param(npy(ITEMS[:, :2]), id="shorter lists"),
        pytest.param(npy(ITEMS.ravel()), id="one dimension"),
        pytest.param(npy(ITEMS)[:-4], id="cut off"),
        pytest.param(header("{'descr': '<i4', 'fortran_order': False, 'shape': (4, 3"), id="half a header"),
        pytest.param(header("{'descr': '<i4', 'fortran_order': False, 'shape': (4, 10**9)}"), id="arithmetic"),
        pytest.param(header("{'descr': '<i4', 'fortran_order': False, 'shape': (-4, 3), }"), id="negative rows"),
        pytest.param(header("{'descr': '|O', 'fortran_order': False, 'shape': (4, 3), }"), id="a header of objects"),
    ],
)
@pytest.mark.parametrize("name", ["items", "scores"])
def test_arrays_of_another_kind_are_refused_though_the_manifest_tells_their_checksum(cache, contents, name, content):
    manifest = json.loads(contents["manifest.json"]) | {f"{name}_sha256": hashlib.sha256(content).hexdigest()}
    assert check(cache, contents, **{name: content, "manifest": json.dumps(manifest).encode()})


@settings(max_examples=60)
@given(
    other=st.fixed_dictionaries(
        {},
        optional={
            "dataset": st.sampled_from(["f" * 64, "", "d" * 63]),
            "split": st.sampled_from(["validation", ""]),
            "sequence_length": st.integers(0, 9),
            "target_length": st.integers(0, 9),
            "windows": st.sampled_from(["b" * 64, "a" * 16 + "b" * 48]),
            "teacher": st.sampled_from(["0" * 64, "e" * 16 + "0" * 48]),
            "mask": st.sampled_from(["seen", "none"]),
        },
    ),
    k=st.integers(1, 5),
)
def test_no_other_key_and_no_longer_list_is_ever_joined(cache, contents, other, k):
    for name in NAMES:
        (cache / name).write_bytes(contents[name])
    key = dataclasses.replace(KEY, **other)
    if key == KEY and k <= 3:
        np.testing.assert_array_equal(load_teacher_cache(cache, key, k).items, ITEMS[:, :k])
        return
    with pytest.raises(InputError) as refused:
        load_teacher_cache(cache, key, k)
    differing = [(getattr(KEY, name), value) for name, value in other.items() if value != getattr(KEY, name)]
    shown = [(str(mine)[:16], str(theirs)[:16]) for mine, theirs in differing] or [("3 items", f"--k={k}")]
    assert any(mine in str(refused.value) and theirs in str(refused.value) for mine, theirs in shown)


def test_a_cache_of_another_format_is_refused(cache, contents):
    manifest = json.loads(contents["manifest.json"]) | {"format": 1}
    assert "has format 1, not 2" in check(cache, contents, manifest=json.dumps(manifest).encode()).message
