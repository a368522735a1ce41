"""What serving reads: configurations, reports and marks of versions that are damaged."""

import json

import pytest
from damage import damaged, damaged_json, refusing
from hypothesis import given, settings
from hypothesis import strategies as st

from rd_tf.evaluation.metrics import parse_cutoffs
from rd_tf.serving.publishing import (
    LAST_VERSION_FILE,
    REPORT_FILE,
    Measured,
    check_gate,
    find_reference,
    parse_min_metric_ratio,
    publishing,
)
from rd_tf.serving.server.settings import read_model_config
from rd_tf.storage import InputError

SCRAPS = (b"\0", b"\xff", b"{", b"}", b'"', b"'", b"\\xff", b"\\0", b"\\", b":", b"#", b"<", b"\n", b"name: 'b'", b"[")
REPORT = {"quality": {"split": "test", "dataset": "a" * 64, "exported": {"map": 0.1, "ndcg@10": 0.2}}, "bytes": 7}
RATIOS = {"map": 0.9}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("serving")


@settings(max_examples=150)
@given(data=st.data())
def test_a_model_config_names_models_with_directories_or_is_refused(folder, data):
    text = f'model_config_list {{\n  config {{ name: "m" base_path: "{folder}" model_platform: "tensorflow" }}\n}}\n'
    path = folder / "models.config"
    path.write_bytes(data.draw(damaged(text.encode(), SCRAPS)))
    with refusing(path):
        models = read_model_config(str(path))
        assert models
        assert len({model.name for model in models}) == len(models)


@settings(max_examples=120)
@given(data=st.data())
def test_a_report_of_a_version_is_numbers_or_refused(folder, data):
    path = folder / "m" / "3" / REPORT_FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    content = data.draw(damaged_json(REPORT).map(str.encode) | damaged(json.dumps(REPORT).encode()))
    path.write_bytes(content)
    with refusing(folder, "--min_metric_ratio", "was measured on"):
        reference = find_reference("last", folder / "m")
        candidate = Measured({"map": 0.1}, "test", "a" * 64, "runs/student")
        check_gate(candidate, reference, RATIOS)
        assert candidate.metrics["map"] >= 0.9 * reference.metrics["map"] * (1 - 1e-6)


@settings(max_examples=60)
@given(
    mark=st.binary(max_size=6) | st.integers(-5, 2**64).map(lambda number: str(number).encode()) | st.just(b"9" * 5000)
)
def test_a_version_has_a_number_that_the_server_can_read_and_was_not_used(tmp_path_factory, mark):
    directory = tmp_path_factory.mktemp("model")
    (directory / "4").mkdir()
    (directory / LAST_VERSION_FILE).write_bytes(mark)
    with refusing(directory) as refused, publishing(directory) as new:
        (new.directory / "saved_model.pb").touch()
    numbers = [int(path.name) for path in directory.iterdir() if path.name.isdecimal()]
    assert len(numbers) == (1 if refused else 2)
    assert all(number < 2**63 for number in numbers)
    assert refused or max(numbers) > max(4, int(mark))


@settings(max_examples=100)
@given(
    values=st.lists(st.text(max_size=8) | st.integers().map(str) | st.sampled_from(["map:0.9", "map:", "ndcg@3:1e400"]))
)
def test_lists_on_the_command_line_are_numbers_in_range_or_refused(values):
    with refusing("--cutoffs"):
        cutoffs = parse_cutoffs(values, num_items=20)
        assert cutoffs == sorted(set(map(int, values)))
        assert 1 <= cutoffs[0] <= cutoffs[-1] <= 20
    with refusing("--min_metric_ratio"):
        assert all(0 < ratio < float("inf") for ratio in parse_min_metric_ratio(values).values())


@pytest.mark.parametrize("mark", ["-1", str(2**63 - 1), "9" * 30])
def test_a_mark_out_of_range_is_refused(tmp_path, mark):
    (tmp_path / LAST_VERSION_FILE).write_text(mark)
    with pytest.raises(InputError, match="is damaged; write the number of the last version"), publishing(tmp_path):
        pass
