"""--teacher=auto of pipelines.distill: which teacher, and how much its lists weigh, decided without the test split."""

import dataclasses
import functools
import time
from pathlib import Path
from typing import Any

from pipelines.distill import TEACHER_SEED
from pipelines.records import read_metrics
from rd_tf import run_directory
from rd_tf.command_line import choose
from rd_tf.data.dataset import load_manifest
from rd_tf.data.teacher_lists import CacheKey, TeacherCache, load_teacher_cache
from rd_tf.data.windows import SplitData, open_dataset
from rd_tf.evaluation.evaluator import Evaluator, save_evaluation
from rd_tf.evaluation.held_out import left_out_line
from rd_tf.flag_definitions import choosing_protocol, protocol_in
from rd_tf.models.registry import has_short_windows
from rd_tf.runtime import print_line
from rd_tf.storage import InputError, json_sha256, read_manifest, write_json
from rd_tf.teacher.cache import keep_or_make
from rd_tf.teacher.named import TeacherNames, choose_ease_l2, choose_weights, ease_shortage, make_teacher
from rd_tf.teacher.scoring import FusedTeacher, Teacher, evaluate_teacher, lists_of
from rd_tf.train import train

CHOICE = "choice.json"
# Validations come every so many epochs, and a training ends after so many in a row without a better MAP.
_VALIDATE_EVERY, _EARLY_STOPPING = 2, 3
# Epochs at most, in --epochs.
_EPOCHS = 2
# Temperatures that are tried, in standard deviations of the scores of a list, and weights of the distillation loss.
_TEMPERATURES, _ALPHAS = (2.0, 4.0), (1.0, 3.0, 10.0, 30.0)
# Weight that is tried where more than the first is worse.
_LIGHT = 0.3
_FUSION = "zscore"
# Rankers that are trained as teachers.
RANKER_CANDIDATES = ("large", "sasrec")
_SASREC_LENGTH = 20


@dataclasses.dataclass(frozen=True)
class Choice:
    """What was decided on a split for choosing.

    Attributes:
        split: "rehearsal", where the test split is to be reported; else "validation".
        candidates: name -> MAP and seconds, of every teacher that was tried alone.
        weights: name -> share in the fusion; of one teacher alone {name: 1}.
        quality: MAP of that teacher.
        ease_l2: lambda of ease, if that was tried, else 0.
        epochs: "large", ..., "student" and "distilled" -> epochs with the best MAP.
        alone: MAP of the student alone.
        trials: flags and MAP of the distilled students.
        alpha: weight of the distillation loss; 0 where no trial was better than the student alone.
        score_temperature: of the distillation loss.
        seconds: that the choice took.
        skipped: candidates and trials that did not fit, with the reason.
    """

    split: str
    candidates: dict[str, dict[str, float]]
    weights: dict[str, float]
    quality: float
    ease_l2: float
    epochs: dict[str, int]
    alone: float
    trials: list[dict[str, float]]
    alpha: float
    score_temperature: float
    seconds: float
    skipped: dict[str, str]


def choose_teacher(root: Path, seed: int, flags: dict[str, Any]) -> Choice:
    """Tries teachers and weights on a split for choosing, within a budget, and remembers what was best.

    Where the test split is reported, that is the split "rehearsal": the validation split asks for the next few items
    alone, where the order of the last ones counts for more than it does for the test part.

    Candidates are trained with the ranking loss of the student (a ranker of --teacher_dim, SASRec) or solved (EASE,
    popularity), and fused where the fusion is better than each. The student is trained alone and, with lists of the
    best teacher, at some temperatures and weights of the distillation loss, 0 included. Finished runs and a finished
    choice are kept, so the same command goes on after an interruption.

    Args:
        root: directory for the runs, the lists and `choice.json`.
        seed: of the student.
        flags: every flag of `pipelines.distill`.

    Raises:
        InputError: a flag or the dataset cannot be used.
    """
    if flags["choice"]:
        return _read_choice(flags["choice"])
    asked = {
        "dataset": load_manifest(flags["dataset"])["fingerprint"],
        "seed": seed,
        "flags": {
            name: value
            for name, value in choose(train, flags, run_dir="", dataset="").items()
            if name not in run_directory.NO_PART_OF_THE_RESULT | {"split", "seed"}
        },
        "pipeline": {name: flags[name] for name in ("teacher_dim", "student_dim", "candidates", "auto_minutes")},
    }
    made_from = json_sha256(asked)
    if (root / CHOICE).is_file() and not flags["force"]:
        before = read_manifest(root / CHOICE, {"choice": dict, "made_from": str})
        if before["made_from"] == made_from:
            print(f"\nchoice kept: {root / CHOICE}", flush=True)
            return Choice(**before["choice"])
    chosen = _Search(root, seed, flags).run()
    write_json(root / CHOICE, {"choice": dataclasses.asdict(chosen), "made_from": made_from})
    return chosen


def _read_choice(path: str) -> Choice:
    """The choice of an earlier search, given in place of a new one."""
    found = read_manifest(Path(path), {"choice": dict})["choice"]
    names = [field.name for field in dataclasses.fields(Choice)]
    if sorted(found) != sorted(names):
        raise InputError(f"--choice={path} does not tell {', '.join(names)}; give the choice.json of an earlier search")
    return Choice(**found)


class _Search:
    def __init__(self, root: Path, seed: int, flags: dict[str, Any]) -> None:
        self._root, self._seed, self._flags = root, seed, flags
        self._begin = time.monotonic()
        # What comes as far ahead as what is reported; of the validation split itself, that.
        protocol = choosing_protocol(flags)
        self._split = protocol.part
        self._data = open_dataset(flags["dataset"]).split(protocol.name)
        self._evaluator = Evaluator(self._data, 1, flags["cutoffs"], flags["block_size"])
        self._skipped: dict[str, str] = {}
        self._epochs: dict[str, int] = {}

    def run(self) -> Choice:
        flags = self._flags
        minutes = flags["auto_minutes"]
        limit = f"begun after {minutes:g} minutes" if minutes else "left out for its time"
        print_line(
            f"\nchoosing a teacher on the {self._split} split: candidates {', '.join(flags['candidates'])}; nothing "
            f"new is {limit}"
        )
        print_line(left_out_line(self._evaluator.held_out.counts, self._data.protocol.keeps_seen))
        alone = self._train("student", {"dim": flags["student_dim"], "seed": self._seed})
        teachers: dict[str, Teacher] = {}
        candidates, ease_l2 = {}, 0.0
        for name in flags["candidates"]:
            begin = time.monotonic()
            try:
                if name == "ease":
                    ease_l2 = self._ease_l2()
                if name in RANKER_CANDIDATES:
                    self._check_time()
                    self._train(name, _ranker_flags(name, self._seed, flags))
                teachers[name] = _make_part(self._root / name, name, ease_l2, self._data)
            except _Skip as reason:
                self._skipped[name] = str(reason)
                print_line(f"{name}: left out, {reason}")
                continue
            found = evaluate_teacher(teachers[name], evaluator=self._evaluator).metrics["map"]
            candidates[name] = {"map": found, "seconds": round(time.monotonic() - begin, 1)}
            print_line(f"{name}: {self._split} MAP {found:.4f}")
        if not teachers:
            raise InputError("--candidates: none of them could be tried; give --auto_minutes=0 or other candidates")
        alone_each = [candidates[name]["map"] for name in teachers]
        weights, quality = choose_weights(list(teachers.values()), _FUSION, self._evaluator, print_line, alone_each)
        shares = {name: weight for name, weight in zip(teachers, weights, strict=True) if weight}
        teacher = _fused([teachers[name] for name in shares], list(shares.values()))
        trials, best = self._trials(teacher)
        better = best["map"] > alone
        if not better:
            self._epochs["distilled"] = self._epochs["student"]
        return Choice(
            self._split,
            candidates,
            shares,
            quality,
            ease_l2,
            self._epochs,
            alone,
            trials,
            best["alpha"] if better else 0.0,
            best["score_temperature"],
            round(time.monotonic() - self._begin, 1),
            self._skipped,
        )

    def _check_time(self) -> None:
        minutes = self._flags["auto_minutes"]
        if minutes and time.monotonic() - self._begin > 60 * minutes:
            raise _Skip(f"the {minutes:g} minutes of --auto_minutes are over")

    def _ease_l2(self) -> float:
        self._check_time()
        if shortage := ease_shortage(int(self._data.is_candidate.sum())):
            raise _Skip(f"it needs {shortage}")
        return choose_ease_l2(self._data, print_line)

    def _train(self, name: str, changed: dict[str, Any]) -> float:
        """Trains on the split for choosing until MAP stops rising; gives the best MAP and notes its epoch."""
        given = {
            "split": self._split,
            "teacher": "",
            "validate_every": _VALIDATE_EVERY,
            "early_stopping": _EARLY_STOPPING,
            "epochs": _EPOCHS * self._flags["epochs"],
            "run_dir": str(self._root / name),
            **changed,
        }
        print(f"\n{name}: {given['run_dir']}", flush=True)
        manifest = train(**choose(train, self._flags, **given))
        self._epochs[name] = int(manifest["epoch"])
        return float(read_metrics(self._root / name, ["map"])["metrics"]["map"])

    def _trials(self, teacher: Teacher) -> tuple[list[dict[str, float]], dict[str, float]]:
        """Distilled students: temperatures first, then weights with the better one."""
        flags = self._flags
        lists = make_lists(self._root / "lists", teacher, flags)
        spread = lists.score_spread
        trials: list[dict[str, float]] = []

        def attempt(temperature: float, alpha: float) -> None:
            values = {
                "dim": flags["student_dim"],
                "seed": self._seed,
                "teacher": str(self._root / "lists"),
                "score_temperature": float(f"{temperature * spread:.3g}"),
                "alpha": alpha,
            }
            name = f"trial-{len(trials)}"
            found = self._train(name, values)
            trial = {"score_temperature": values["score_temperature"], "alpha": alpha, "map": found}
            trials.append({**trial, "epoch": self._epochs.pop(name)})
            tried = f"distilled, alpha = {alpha:g}, tau = {values['score_temperature']:g}"
            print_line(f"{tried}: {self._split} MAP {found:.4f}")

        try:
            for temperature in _TEMPERATURES:
                attempt(temperature, _ALPHAS[0])
                self._check_time()
            temperature = max(zip(trials, _TEMPERATURES, strict=True), key=lambda tried: tried[0]["map"])[1]
            for alpha in _ALPHAS[1:]:
                # As long as more weight helps.
                attempt(temperature, alpha)
                self._check_time()
                if trials[-1]["map"] <= max(trial["map"] for trial in trials[:-1]):
                    break
            if max(trials, key=lambda trial: trial["map"])["alpha"] == _ALPHAS[0]:
                attempt(temperature, _LIGHT)
        except _Skip as reason:
            self._skipped["further trials"] = str(reason)
        best_trial = max(trials, key=lambda trial: trial["map"])
        self._epochs["distilled"] = int(best_trial["epoch"])
        return trials, best_trial


def _ranker_flags(name: str, seed: int, flags: dict[str, Any]) -> dict[str, Any]:
    """What of a teacher's flags is not the student's."""
    given = {"teacher": "", "dim": flags["teacher_dim"], "seed": seed + TEACHER_SEED}
    if name == "sasrec":
        # It has no weights of users, and its rows of items are queries too: half as wide, it is the better one.
        half = max(1, flags["teacher_dim"] // 2)
        given |= {"model": "sasrec", "dim": half, "sequence_length": _SASREC_LENGTH, "heads": 1}
    return given


class _Skip(Exception):
    """A candidate that is not tried; the message says why."""


def _fused(teachers: list[Teacher], weights: list[float]) -> Teacher:
    return teachers[0] if len(teachers) == 1 else FusedTeacher(teachers, _FUSION, weights)


def make_lists(directory: Path, teacher: Teacher, flags: dict[str, Any]) -> TeacherCache:
    """The cache of a teacher for the student's windows; one that is there and belongs to it is kept."""
    data, k = teacher.data, flags["k"]
    mask = data.protocol.mask(flags["mask"])
    short = has_short_windows(flags["model"], flags["short_windows"])
    windows = data.windows(flags["sequence_length"], flags["target_length"], short)
    key = CacheKey.of(data.fingerprint, data.name, windows, teacher.fingerprint, mask)
    make = functools.partial(lists_of, teacher, windows, k, mask, flags["block_size"])
    keep_or_make(directory, key, k, make, flags["force"], is_default_place=True)
    return load_teacher_cache(directory, key, k)


def make_chosen(directory: Path, choice: Choice, seed: int, flags: dict[str, Any]) -> dict[str, Path]:
    """Makes the chosen teacher for the split that is reported: trains and solves its parts, fuses them, and lists.

    The fusion and each of its parts are evaluated: `metrics.json` and `per_user.parquet` lie with the lists, in
    `teacher`, and in `teacher-<name>`. What is there and belongs to the choice is kept.

    Args:
        directory: for the runs and the lists of the seed.
        choice: what was chosen.
        seed: of the student.
        flags: every flag of `pipelines.distill`.

    Returns:
        "teacher" -> directory of the lists; "teacher-<name>" -> directory of every part's evaluation.
    """
    lists, begin = directory / "teacher", time.monotonic()
    parts = {f"teacher-{name}": directory / f"teacher-{name}" for name in choice.weights}
    # Before anything is solved: of trained parts the weights decide.
    fingerprints = {name: _train_part(directory, name, choice, seed, flags) for name in choice.weights}
    asked = [fingerprints, choice.weights, choice.ease_l2, *(flags[name] for name in _OF_LISTS)]
    asked += protocol_in(flags).name.split("/")[1:]
    asked += ["short windows"] * has_short_windows(flags["model"], flags["short_windows"])
    made_from = json_sha256([*asked, load_manifest(flags["dataset"])["fingerprint"]])
    is_whole = all((path / run_directory.PER_USER).is_file() for path in (lists, *parts.values()))
    if is_whole and not flags["force"] and read_metrics(lists).get("made_from") == made_from:
        print(f"teacher kept: {lists}", flush=True)
        return {"teacher": lists, **parts}
    data = open_dataset(flags["dataset"]).split(protocol_in(flags).name)
    evaluator = Evaluator(data, 1, flags["cutoffs"], flags["block_size"])
    teachers = {name: _make_part(parts[f"teacher-{name}"], name, choice.ease_l2, data) for name in choice.weights}
    for name, teacher in teachers.items():
        if name not in RANKER_CANDIDATES:
            place = parts[f"teacher-{name}"]
            place.mkdir(parents=True, exist_ok=True)
            evaluation = evaluate_teacher(teacher, evaluator=evaluator)
            seconds = round(time.monotonic() - begin, 1)
            described = {"model": name, "parameters": teacher.parameters, "seconds": seconds}
            save_evaluation(evaluation, data.name, place, teacher=described)
    teacher = _fused(list(teachers.values()), list(choice.weights.values()))
    make_lists(lists, teacher, flags)
    described = {
        "model": next(iter(choice.weights)) if len(choice.weights) == 1 else "fusion",
        "parameters": teacher.parameters,
        "seconds": time.monotonic() - begin,
    }
    evaluation = evaluate_teacher(teacher, evaluator=evaluator)
    save_evaluation(evaluation, data.name, lists, teacher=described, made_from=made_from)
    return {"teacher": lists, **parts}


# What lists depend on beside the teacher.
_OF_LISTS = ("split", "k", "mask", "sequence_length", "target_length", "cutoffs")


def _train_part(directory: Path, name: str, choice: Choice, seed: int, flags: dict[str, Any]) -> str:
    """Trains a ranker among the teachers; gives the fingerprint of its weights, or the name of a solved teacher."""
    if name not in RANKER_CANDIDATES:
        return name
    run = directory / f"teacher-{name}"
    print(f"\nteacher {name}, seed {seed}: {run}", flush=True)
    given = {"epochs": choice.epochs[name], "run_dir": str(run), **_ranker_flags(name, seed, flags)}
    return str(train(**choose(train, flags, **given))["model"]["fingerprint"])


def _make_part(run: Path, name: str, ease_l2: float, data: SplitData) -> Teacher:
    place = str(run) if name in RANKER_CANDIDATES else name
    return make_teacher(TeacherNames((place,), ease_l2=ease_l2), data, log=lambda line: None)
