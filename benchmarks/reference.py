"""Times the authors' code, in a process of its own with another Python that has torch, numpy and scipy.

`reference_process` starts this file there as `python reference.py <checkout>`. That child takes one JSON request a line
from stdin and gives one JSON answer a line to stdout: `{"make": kind, ...}` prepares one of `KINDS`, `{"run": true}`
runs the last one made once and answers its times in seconds. All that is timed is the authors' own functions, called as
they are; none of their lines is here.

Users are numbered anew from 0 in every request: their functions walk over all users they are shown, and lists of
unseen items for 13,000 users would take 7 GB. Tables have their full size.
"""

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse


def model_arguments(dim: int, sequence_length: int) -> types.SimpleNamespace:
    """The settings that their command line defaults to."""
    return types.SimpleNamespace(d=dim, L=sequence_length, nv=2, nh=16, drop=0.5, ac_conv="iden", ac_fc="sigm")


class Interactions:
    """What their functions ask of an `Interactions`, made from arrays instead of a text file."""

    def __init__(
        self,
        num_users: int,
        num_item_rows: int,
        items: np.ndarray,
        offsets: np.ndarray,
        sequences: Any = None,
        test_sequences: Any = None,
    ) -> None:
        self.num_users = num_users
        self.num_items = num_item_rows
        self.sequences = sequences
        self.test_sequences = test_sequences
        shape = (len(offsets) - 1, num_item_rows)
        self._matrix = scipy.sparse.csr_matrix((np.ones(len(items)), items, offsets), shape)

    def tocsr(self) -> Any:
        """The users' items as a matrix."""
        return self._matrix


def read_training_set(data: str, num_users: int, num_item_rows: int) -> Interactions:
    """Reads `users`, `sequences`, `targets`, `seen` and `seen_offsets`."""
    import interactions

    with np.load(data) as arrays:
        windows = interactions.SequenceInteractions(
            arrays["users"].astype(np.int64), arrays["sequences"].astype(np.int64), arrays["targets"].astype(np.int64)
        )
        return Interactions(num_users, num_item_rows, arrays["seen"], arrays["seen_offsets"], windows)


def timed_fit(recommender: Any, train: Interactions) -> Any:
    """A repeat of their `fit`, one epoch, with the time inside their sampling taken apart."""
    inner, sampling = recommender._generate_negative_samples, [0.0]

    def sample(*arguments: Any, **named: Any) -> Any:
        begin = time.perf_counter()
        drawn = inner(*arguments, **named)
        sampling[0] += time.perf_counter() - begin
        return drawn

    recommender._generate_negative_samples = sample

    def run() -> dict[str, float]:
        sampling[0] = 0.0
        begin = time.perf_counter()
        recommender.fit(train, None, verbose=False)
        return {"seconds": time.perf_counter() - begin, "sampling": sampling[0]}

    return run


def make_training(
    data: str, num_users: int, num_item_rows: int, dim: int, batch_size: int, negatives: int, **rates: float
) -> Any:
    """Their `Recommender.fit` on a ranking loss alone."""
    import train_caser

    # It writes the weights at the end of every fit, which is no part of a step.
    train_caser._save_checkpoint = lambda *_: None
    train = read_training_set(data, num_users, num_item_rows)
    recommender = train_caser.Recommender(
        n_iter=1,
        batch_size=batch_size,
        neg_samples=negatives,
        model_args=model_arguments(dim, train.sequences.L),
        **rates,
    )
    return timed_fit(recommender, train)


def make_distillation(
    data: str,
    num_users: int,
    num_item_rows: int,
    dim: int,
    batch_size: int,
    negatives: int,
    k: int,
    rank_samples: int,
    with_discrepancy: bool,
    **rates: float,
) -> Any:
    """Their `DistilledRecommender.fit` with lists from a file, `lists` of the data."""
    import distill_caser

    train = read_training_set(data, num_users, num_item_rows)
    with np.load(data) as arrays:
        np.save("lists.npy", arrays["lists"].astype(np.int64))
    arguments = model_arguments(dim, train.sequences.L)
    recommender = distill_caser.DistilledRecommender(
        n_iter=1,
        batch_size=batch_size,
        neg_samples=negatives,
        teacher_model_path="",
        teacher_topk_path="lists.npy",
        lamda=1.0,
        mu=0.1,
        num_dynamic_samples=rank_samples,
        # Every fit is epoch 1, and w^b begins after this epoch.
        dynamic_start_epoch=0 if with_discrepancy else 1,
        K=k,
        teach_alpha=1.0,
        student_model_args=arguments,
        teacher_model_args=arguments,
        **rates,
    )
    return timed_fit(recommender, train)


def make_top_k(data: str, num_users: int, num_item_rows: int, dim: int, k: int) -> Any:
    """Their `DistilledRecommender._get_teacher_topk` of a random teacher for some windows."""
    import distill_caser

    train = read_training_set(data, num_users, num_item_rows)
    windows = train.sequences
    recommender = distill_caser.DistilledRecommender(
        teacher_model_path="", teacher_model_args=model_arguments(dim, windows.L)
    )
    recommender._initialize_teacher(train)
    recommender.T = windows.T

    def run() -> dict[str, float]:
        begin = time.perf_counter()
        recommender._get_teacher_topk(windows.sequences, windows.user_ids.reshape(-1, 1), windows.targets, k)
        return {"seconds": time.perf_counter() - begin}

    return run


def make_evaluation(data: str, num_users: int, num_item_rows: int, dim: int, cutoffs: list) -> Any:
    """Their `evaluate_ranking` of a random model for some users: `sequences`, `seen`, `targets` and offsets."""
    import evaluation
    import interactions
    import train_caser

    with np.load(data) as arrays:
        sequences = arrays["sequences"].astype(np.int64)
        latest = interactions.SequenceInteractions(np.arange(len(sequences)), sequences)
        train = Interactions(num_users, num_item_rows, arrays["seen"], arrays["seen_offsets"], test_sequences=latest)
        test = Interactions(num_users, num_item_rows, arrays["targets"], arrays["target_offsets"])
    recommender = train_caser.Recommender(
        l2=0.0, learning_rate=1e-3, model_args=model_arguments(dim, sequences.shape[1])
    )
    recommender._initialize(train)

    def run() -> dict[str, float]:
        begin = time.perf_counter()
        evaluation.evaluate_ranking(recommender, test, train, k=cutoffs)
        return {"seconds": time.perf_counter() - begin}

    return run


KINDS: dict[str, Any] = {
    "training": make_training,
    "distillation": make_distillation,
    "top_k": make_top_k,
    "evaluation": make_evaluation,
}


_FILES = ("train_caser.py", "distill_caser.py", "evaluation.py", "interactions.py")


def _input_error(sentence: str) -> Exception:
    # The child's Python has no rd_tf.
    from rd_tf.storage import InputError

    return InputError(sentence)


class ReferenceProcess:
    """Asks the child, which works in `directory`; made by `reference_process`."""

    def __init__(self, process: subprocess.Popen[str], directory: Path) -> None:
        self._process = process
        self._directory = directory
        self.torch = self._answer().get("torch")

    def make(self, kind: str, arrays: dict[str, Any], **settings: Any) -> None:
        """Prepares what `run` runs next: a key of `KINDS`, its arrays and its other arguments (JSON values)."""
        data = self._directory / "data.npz"
        np.savez(data, **arrays)
        self._ask({"make": kind, "data": str(data), **settings})

    def run(self) -> dict[str, float]:
        """Runs what was made, once; its times in seconds. An InputError where the authors' code ended in an error."""
        return self._ask({"run": True})

    def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        answer = json.loads(line) if line else {"error": f"it ended with exit code {self._process.wait()}"}
        if "error" in answer:
            raise _input_error(
                f"the authors' code cannot be measured ({answer['error']}); check --reference and --reference_python"
            )
        return answer


@contextlib.contextmanager
def reference_process(reference: str, python: str, script: Path = Path(__file__)) -> Iterator[ReferenceProcess | None]:
    """Starts the authors' code, and ends it with the block.

    Its threads are left as their libraries set them: while the child waits for a request they sleep after a few
    milliseconds of spinning, and OMP_WAIT_POLICY=PASSIVE would rather change the speed of the authors' code.

    Args:
        reference: a checkout of it; empty gives None.
        python: an interpreter with torch, numpy and scipy; empty for this one.
        script: what answers.

    Raises:
        InputError: the checkout or the interpreter cannot be used.
    """
    if not reference:
        yield None
        return
    for name in _FILES:
        if not (Path(reference) / name).is_file():
            raise _input_error(f"--reference={reference} holds no {name}; name a checkout of the authors' repository")
    with tempfile.TemporaryDirectory() as directory:
        command = [python or sys.executable, "-B", str(script), str(Path(reference).resolve())]
        pipe = subprocess.PIPE
        try:
            process = subprocess.Popen(
                command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, cwd=directory, text=True
            )
        except OSError:
            raise _input_error(f"--reference_python={python} is no program that runs; name a Python") from None
        try:
            yield ReferenceProcess(process, Path(directory))
        finally:
            process.kill()
            process.communicate()


def main() -> None:
    # Their code prints; the answers go to a stdout of their own.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    # The script's own directory would let a benchmark pass for one of their modules.
    sys.path[0] = sys.argv[1]

    def answer(value: dict) -> None:
        answers.write(json.dumps(value) + "\n")
        answers.flush()

    subject: Any = None
    try:
        import distill_caser  # noqa: F401

        torch = sys.modules.get("torch")
        answer({"ready": True, "torch": getattr(torch, "__version__", None)})
        for line in sys.stdin:
            request = json.loads(line)
            if request.pop("run", False):
                answer(subject())
            else:
                # The one before goes first: two models and two sets of lists need not fit.
                subject = None
                subject = KINDS[request.pop("make")](**request)
                answer({"made": True})
    except Exception as error:
        answer({"error": f"{type(error).__name__}: {error}"})
        sys.exit(1)


if __name__ == "__main__":
    main()
