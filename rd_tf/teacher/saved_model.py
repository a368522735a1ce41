"""Lists of a SavedModel: any signature that takes raw ids and lists raw ids."""

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from rd_tf.data.interactions import Interactions
from rd_tf.data.teacher_lists import CacheKey, TeacherCache, masked_items
from rd_tf.data.windows import SplitData, last_items
from rd_tf.runtime import progress_bar
from rd_tf.storage import InputError, file_sha256
from rd_tf.teacher.lists import ListFitter, check_choices, fitted_lists

_GRAPH = "saved_model.pb"
_INPUTS = {"user_id": 1, "recent_items": 2, "exclude_items": 2, "k": 1}


def saved_model_lists(
    directory: str | os.PathLike[str],
    data: SplitData,
    k: int = 10,
    *,
    signature: str = "serving_default",
    sequence_length: int = 5,
    target_length: int = 1,
    mask: str = "target",
    unknown: str = "refuse",
    incomplete: str = "refuse",
    block_size: int = 1024,
    short_windows: bool = False,
) -> TeacherCache:
    """Asks a SavedModel for a list for every training window.

    See `SavedModelLists` for what it is asked. An answer's items that the mask keeps out, that have no training row or
    that stand in it twice are left out.

    Args:
        directory: the SavedModel, or the directory of its versions, of which the highest is taken.
        data: the dataset and its split.
        k: K.
        signature: which signature lists items.
        sequence_length: L of the windows; so many items the signature is told of.
        target_length: T of the windows.
        mask: "target", "seen" or "none", as in `rd_tf.teacher.cache.teacher_lists`.
        unknown: what becomes of listed items that the dataset does not have, "refuse" or "skip".
        incomplete: "refuse" or "pad", as in `rd_tf.teacher.lists.read_teacher_lists`.
        block_size: windows a request.
        short_windows: whether there are windows of fewer than L items; see `rd_tf.data.windows.make_windows`.

    Raises:
        InputError: the SavedModel or an answer cannot be used, or what `unknown` and `incomplete` refuse.
        ValueError: an unknown mask or choice, or a length below 1.
    """
    check_choices(mask, unknown, incomplete)
    model = SavedModelLists(directory, signature, data.interactions, unknown)
    key = model.key(data, sequence_length, target_length, mask, incomplete, short_windows)
    return model.of_windows(data, k, key, incomplete, block_size, short_windows)


class SavedModelLists:
    """A signature that lists items.

    It may take the inputs `user_id` `[b]`, `recent_items` `[b, n]` (oldest first, padded on the left), `exclude_items`
    `[b, m]` (items that should not be listed) and `k` `[b]` or `[]` (length of the list), the first or the second at
    least; it gives `items` `[b, any]`, and may give `scores` of the same shape, else the items stand best first. Ids
    are strings, or whole numbers; `""` and 0 are no item. Where it takes no `exclude_items`, it is asked for so many
    more items.

    Args:
        directory: the SavedModel, or the directory of its versions.
        signature: its name.
        interactions: the dataset, whose raw ids it is asked about.
        unknown: what becomes of listed items that the dataset does not have: "refuse" or "skip".

    Attributes:
        path: of the SavedModel.
        counts: "unknown items", "items without a training row", "repeated items" in the answers.
        has_scores: whether the signature gives scores.

    Raises:
        InputError: there is no SavedModel, it cannot be loaded, or its signature cannot be asked.
    """

    def __init__(
        self, directory: str | os.PathLike[str], signature: str, interactions: Interactions, unknown: str
    ) -> None:
        self.path = highest_version(directory)
        self._name, self._unknown = signature, unknown
        try:
            # An attribute, since a signature alone does not keep its variables alive.
            self._loaded = tf.saved_model.load(str(self.path))
        except (OSError, ValueError, KeyError, RuntimeError, tf.errors.OpError) as error:
            first = str(error).splitlines()[0][:200]
            raise InputError(f"--saved_model={self.path} cannot be loaded ({first}); export the model again") from None
        signatures = self._loaded.signatures
        if signature not in signatures:
            there = ", ".join(signatures) or "none"
            raise InputError(f"--saved_model={self.path} has no signature {signature!r}; --signature may be {there}")
        self._ask = signatures[signature]
        self._inputs: dict[str, tf.TensorSpec] = self._ask.structured_input_signature[1]
        self._check()
        self.has_scores = "scores" in self._ask.structured_outputs
        self._user_ids = self._typed("user_id", interactions.user_ids, [])
        self._recent_ids = self._typed("recent_items", interactions.item_ids, [0])
        self._exclude_ids = self._typed("exclude_items", interactions.item_ids, [0])
        is_text = self._ask.structured_outputs["items"].dtype == tf.string
        self._numbers: dict[Any, int] = {b"": 0} if is_text else {0: 0}
        for item, raw_id in enumerate(interactions.item_ids, 1):
            if is_text:
                self._numbers[raw_id.encode("utf-8", "surrogateescape")] = item
            elif (number := _integer(raw_id)) is not None:
                self._numbers[number] = item
        self.counts = {"unknown items": 0, "items without a training row": 0, "repeated items": 0}

    def fingerprint(self, incomplete: str) -> str:
        """SHA-256 (hex) of the SavedModel's files and of what is asked: what stands for the teacher's weights."""
        digest = hashlib.sha256(f"{self._name},{self._unknown},{incomplete}".encode())
        parts = [self.path / _GRAPH, *(self.path / "variables").rglob("*"), *(self.path / "assets").rglob("*")]
        for file in sorted(path for path in parts if path.is_file()):
            digest.update(f"{file.relative_to(self.path)},{file_sha256(file)}".encode())
        return digest.hexdigest()

    def key(
        self,
        data: SplitData,
        sequence_length: int,
        target_length: int,
        mask: str,
        incomplete: str,
        short_windows: bool = False,
    ) -> CacheKey:
        """The key of a cache of its lists; arguments as of `saved_model_lists`."""
        windows = data.windows(sequence_length, target_length, short_windows)
        return CacheKey.of(data.fingerprint, data.name, windows, self.fingerprint(incomplete), mask)

    def of_windows(
        self,
        data: SplitData,
        k: int,
        key: CacheKey,
        incomplete: str,
        block_size: int = 1024,
        short_windows: bool = False,
    ) -> TeacherCache:
        """The lists of all windows; arguments and errors as of `saved_model_lists`."""
        assert key.mask is not None
        windows = data.windows(key.sequence_length, key.target_length, short_windows)
        fitter = ListFitter(data, windows, key.mask)

        def read(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
            exclude = masked_items(fitter.mask, windows, data.seen, rows)
            return self.lists(windows.users[rows], windows.sequences[rows], exclude, k, data.is_candidate)

        blocks = [np.arange(at, min(at + block_size, len(windows))) for at in range(0, len(windows), block_size)]
        with progress_bar("SavedModel's lists", len(windows), "windows") as advance:
            return fitted_lists(
                f"{self.path}, signature {self._name}",
                read,
                fitter,
                k,
                key,
                incomplete,
                blocks,
                self.counts,
                self.has_scores,
                advance,
            )

    def lists(
        self,
        users: np.ndarray,
        recent: np.ndarray,
        exclude: np.ndarray,
        k: int,
        is_candidate: np.ndarray | None = None,
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """Asks for the lists of some users.

        Args:
            users: `[n] int32`.
            recent: `[n, m] int32`, their items, oldest first, padded with 0 on the left.
            exclude: `[n, m] int32`, items that should not be listed, 0 = none.
            k: how many items to ask for.
            is_candidate: `[num_items + 1] bool`, the items that may be listed; None: all.

        Returns:
            items `[n, any] int32`, 0 for what is left out, and scores `[n, any] float32` or None. With scores the
            highest come first.

        Raises:
            InputError: the signature fails or its answer cannot be used.
        """
        answer = self._answer(users, recent, exclude, k)
        found = np.asarray(answer["items"])
        if found.ndim != 2 or len(found) != len(users):
            raise self._trouble(f"answers {len(users)} rows with items of the shape {found.shape}")
        flat = found.ravel().tolist()
        items = np.array([self._numbers.get(name, -1) for name in flat], np.int32).reshape(found.shape)
        if self._unknown == "refuse" and (items < 0).any():
            name = flat[int(np.argmax(items.ravel() < 0))]
            shown = name.decode(errors="replace") if isinstance(name, bytes) else name
            raise self._trouble(f"lists the item {shown!r}, which is not in the dataset", "pass --unknown=skip")
        scores = None
        if self.has_scores:
            scores = np.asarray(answer["scores"]).astype(np.float32)
            if scores.shape != items.shape or not np.isfinite(scores[items > 0]).all():
                raise self._trouble(f"gives scores of the shape {scores.shape} that are not finite or not one an item")
            order = np.argsort(np.where(items > 0, -scores, np.inf), axis=1, kind="stable")
            items, scores = np.take_along_axis(items, order, 1), np.take_along_axis(scores, order, 1)
        self._leave_out("unknown items", items < 0, items)
        if is_candidate is not None:
            self._leave_out("items without a training row", ~is_candidate[items] & (items > 0), items)
        self._leave_out("repeated items", ~_is_first(items), items)
        return items, scores

    def _leave_out(self, name: str, out: np.ndarray, items: np.ndarray) -> None:
        self.counts[name] += int(np.count_nonzero(out))
        items[out] = 0

    def _answer(self, users: np.ndarray, recent: np.ndarray, exclude: np.ndarray, k: int) -> dict[str, tf.Tensor]:
        given: dict[str, Any] = {}
        if "user_id" in self._inputs:
            given["user_id"] = self._user_ids[users]
        if "recent_items" in self._inputs:
            given["recent_items"] = self._recent_ids[self._fit_width("recent_items", recent)]
        if "exclude_items" in self._inputs:
            given["exclude_items"] = self._exclude_ids[self._fit_width("exclude_items", exclude)]
        else:
            k = min(k + exclude.shape[1], len(self._numbers))
        if "k" in self._inputs:
            given["k"] = np.full([len(users)] if self._inputs["k"].shape.rank else [], k)
        try:
            return self._ask(**{name: tf.constant(value, self._inputs[name].dtype) for name, value in given.items()})
        except (tf.errors.OpError, ValueError, TypeError) as error:
            raise self._trouble(f"fails on a request ({str(error).splitlines()[0][:200]})") from None

    def _fit_width(self, name: str, items: np.ndarray) -> np.ndarray:
        """Cuts the oldest items off, or pads on the left, where an input is of a fixed width."""
        width = self._inputs[name].shape[1]
        if width is None:
            return items
        rows, given = items.shape
        if name == "exclude_items" and given > width:
            raise self._trouble(f"takes {width} exclude_items, but {given} are to be kept out")
        return last_items(items.ravel(), np.arange(rows) * given, np.full(rows, given), width)

    def _check(self) -> None:
        described = ", ".join(f"{name} {spec.shape} {spec.dtype.name}" for name, spec in self._inputs.items())
        needed = f"the inputs user_id or recent_items, perhaps exclude_items and k, not {described or 'none'}"
        if not self._inputs.keys() <= _INPUTS.keys() or not self._inputs.keys() & {"user_id", "recent_items"}:
            raise self._trouble(f"needs {needed}")
        for name, spec in self._inputs.items():
            ids = name != "k"
            is_number = spec.dtype in (tf.int32, tf.int64)
            ranks = {_INPUTS[name]} if ids else {0, 1}
            if not (is_number or (ids and spec.dtype == tf.string)) or spec.shape.rank not in ranks:
                raise self._trouble(f"has an input {name} {spec.shape} {spec.dtype.name}, which cannot be given")
            if spec.shape.rank and spec.shape[0] is not None:
                raise self._trouble(f"takes exactly {spec.shape[0]} rows", "save it with a batch of any size")
        outputs = self._ask.structured_outputs
        if "items" not in outputs or outputs["items"].dtype not in (tf.string, tf.int32, tf.int64):
            there = ", ".join(f"{name} {spec.dtype.name}" for name, spec in outputs.items())
            raise self._trouble(f"gives {there}, and no items as strings or whole numbers")

    def _typed(self, name: str, ids: Sequence[str], none: list[int]) -> np.ndarray:
        """Raw ids as an input takes them, after what means none."""
        if name not in self._inputs or self._inputs[name].dtype == tf.string:
            return np.array([*("" for _ in none), *ids], object)
        numbers = [_integer(raw_id) for raw_id in ids]
        if None in numbers:
            raw_id = ids[numbers.index(None)]
            raise self._trouble(f"takes whole numbers as {name}, but the dataset has the id {raw_id!r}")
        return np.array([*none, *numbers], np.int64)

    def _trouble(self, what: str, remedy: str = "name another --signature or --saved_model") -> InputError:
        return InputError(f"--saved_model={self.path}: the signature {self._name!r} {what}; {remedy}")


def highest_version(directory: str | os.PathLike[str]) -> Path:
    """The SavedModel in a directory: itself, or the highest of its versions, subdirectories whose names are numbers.

    Raises:
        InputError: there is none.
    """
    path = Path(directory)
    if (path / _GRAPH).is_file():
        return path
    children = list(path.iterdir()) if path.is_dir() else []
    versions = [child for child in children if child.name.isascii() and child.name.isdigit()]
    found = [child for child in versions if (child / _GRAPH).is_file()]
    if not found:
        raise InputError(f"--saved_model={directory} holds no SavedModel; name one, or the directory of its versions")
    return max(found, key=lambda child: int(child.name))


def _integer(raw_id: str) -> int | None:
    """The number that a raw id is written as, as Python writes it: "007" and "7" would be one number."""
    digits = raw_id.removeprefix("-")
    if not (digits.isascii() and digits.isdigit()) or len(digits) > 19:
        return None
    number = int(raw_id)
    return number if str(number) == raw_id and -(2**63) <= number < 2**63 else None


def _is_first(items: np.ndarray) -> np.ndarray:
    """`[n, m] bool`: whether an item stands in its row for the first time; true for 0."""
    order = np.argsort(items, axis=1, kind="stable")
    in_order = np.take_along_axis(items, order, 1)
    repeats = np.zeros(items.shape, bool)
    repeats[:, 1:] = (in_order[:, 1:] == in_order[:, :-1]) & (in_order[:, 1:] > 0)
    is_first = np.empty(items.shape, bool)
    np.put_along_axis(is_first, order, ~repeats, 1)
    return is_first
