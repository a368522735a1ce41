"""python -m rd_tf.show: a user's history and what teacher, student alone and distilled student list, side by side."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rd_tf import command_line, run_directory
from rd_tf.storage import InputError

if TYPE_CHECKING:
    import numpy as np

    from rd_tf.data.windows import SplitData

# Role -> heading; pipelines.distill names the runs' directories so.
ROLES = {"teacher": "teacher", "student": "student alone", "distilled": "distilled"}
_HISTORY = 10


def show(*, run_dir: str, user: str, dataset: str, k: int, import_module: Sequence[str] = ()) -> dict[str, list[str]]:
    """Shows a user's last items and the --k items that each model lists next, with the names that the dataset has.

    --run_dir is a directory of pipelines.distill (of several seeds the first is shown), one of its seeds, or a run,
    beside which its teacher is shown. Lists are those of the evaluation: the models know the user's training items and
    list none of them (unless they were trained with --seen_items=keep); what the user visited later is marked.
    --dataset is only needed where the run's is gone.

    Returns:
        Heading -> the raw ids of the list, best first.

    Raises:
        InputError: no finished run, another dataset than the run's, a user whom it does not have, or too large a --k.
    """
    command_line.import_plugins(import_module)
    if not user:
        raise InputError("--user is empty; name a user by the raw id, as in the dataset's users.txt")
    places = find_models(run_dir)
    # Of a teacher there may be lists only.
    manifest = run_directory.load_run_manifest(
        next(path for role, path in reversed(places.items()) if role != "teacher")
    )
    dataset = dataset or manifest["dataset"].get("path", "")
    from rd_tf.data.dataset import check_same_dataset, read_item_names

    check_same_dataset(dataset, manifest["dataset"]["fingerprint"], "run_dir", run_dir)

    from rd_tf.runtime import import_quietly

    import_quietly()
    from rd_tf.data.windows import open_dataset

    data = open_dataset(dataset).split(manifest["split"])
    interactions = data.interactions
    if user not in interactions.user_ids:
        raise InputError(f"--user={user} is not in {dataset}; its users are such as {interactions.user_ids[0]!r}")
    number = interactions.user_ids.index(user)
    names = read_item_names(dataset) or [""] * data.num_items
    titles = [name or item for name, item in zip(names, interactions.item_ids, strict=True)]
    lists = {ROLES[role]: _list_of(path, data, number, k, manifest) for role, path in places.items()}
    known = data.items[data.users == number]
    later = interactions.items[(interactions.users == number) & data.split.held_out]
    _print(user, titles, known, later, lists, manifest["split"])
    return {heading: [interactions.item_ids[item - 1] for item in items] for heading, items in lists.items()}


show.flag_defaults = {"k": 10}  # type: ignore[attr-defined]


def find_models(run_dir: str) -> dict[str, str]:
    """The models below or beside a directory.

    Args:
        run_dir: of a pipeline, of one of its seeds, or a run.

    Returns:
        Role -> directory, in the order of `ROLES`; the teacher's may be a teacher cache.

    Raises:
        InputError: there is no finished run.
    """
    root = Path(run_dir)
    if not run_dir:
        raise InputError("--run_dir is empty; name a run directory")
    if run_directory.is_finished_run(root):
        manifest = run_directory.load_run_manifest(root)
        given = (manifest.get("flags") or {}).get("teacher", "")
        found = {"distilled" if given or manifest.get("teacher") else "student": run_dir}
        return {"teacher": given, **found} if _is_model(given) else found
    seeds = sorted(root.glob("seed-*"), key=lambda path: (len(path.name), path.name))
    for place in [root, *seeds]:
        found = {role: str(place / role) for role in ROLES if _is_model(str(place / role))}
        if found.keys() & {"student", "distilled"}:
            if "teacher" not in found and "distilled" in found:
                # It was given to the pipeline, and lies elsewhere.
                found = find_models(found["distilled"]) | found
            return {role: found[role] for role in ROLES if role in found}
    if not root.is_dir():
        raise InputError(f"--run_dir={run_dir} is not a directory; train a model there with python -m rd_tf.train")
    raise InputError(
        f"--run_dir={run_dir} holds no finished run, nor student and distilled or seed-0; name what "
        "python -m rd_tf.train or python -m pipelines.distill has written"
    )


def _is_model(path: str) -> bool:
    from rd_tf.data.teacher_lists import is_teacher_cache

    return bool(path) and (run_directory.is_finished_run(path) or is_teacher_cache(path))


def _list_of(path: str, data: "SplitData", user: int, k: int, manifest: Mapping[str, Any]) -> "np.ndarray":
    """The items that a model lists for a user, best first."""
    import numpy as np

    from rd_tf.data.teacher_lists import CacheKey, is_teacher_cache, load_cache_manifest, load_teacher_cache

    if is_teacher_cache(path):
        flags = manifest["flags"]
        windows = data.windows(flags["sequence_length"], flags["target_length"], bool(manifest.get("short_windows")))
        key = CacheKey.of(data.fingerprint, data.name, windows, None, None)
        cache = load_teacher_cache(path, key, min(k, load_cache_manifest(path)["k"]))
        own = np.flatnonzero(windows.users == user)
        return cache.items[own[-1:]][0] if len(own) else np.zeros(0, np.int32)
    from rd_tf.models.registry import load_model
    from rd_tf.teacher.user_lists import ranker_lists

    described = run_directory.load_run_manifest(path)
    if described["dataset"]["fingerprint"] != data.fingerprint or described["split"] != data.name:
        raise InputError(
            f"{path} was trained on another dataset or split than the run; show it by a --run_dir of its own"
        )
    lists = ranker_lists(load_model(path), data, k, data.is_candidate)
    items, _ = lists.list_users(np.array([user], np.int32))
    return items[0][items[0] > 0]


def _print(
    user: str,
    titles: Sequence[str],
    known: "np.ndarray",
    later: "np.ndarray",
    lists: Mapping[str, "np.ndarray"],
    split: str,
) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console()
    recent = known[::-1][:_HISTORY]
    history = Table(box=box.SIMPLE)
    history.add_column("")
    history.add_column("item")
    for place, item in enumerate(recent, 1):
        history.add_row(str(place), Text(titles[item - 1]))
    visited = set(later.tolist())
    table = Table(box=box.SIMPLE)
    table.add_column("", justify="right")
    for name in lists:
        table.add_column(name, ratio=1, no_wrap=True, overflow="ellipsis")
    for rank in range(max(map(len, lists.values()), default=0)):
        table.add_row(str(rank + 1), *(_cell(items, rank, titles, visited) for items in lists.values()))
    table.add_section()
    hits = [sum(item in visited for item in items.tolist()) for items in lists.values()]
    table.add_row("", *(f"{count} of {len(visited)} visited" for count in hits))
    # Not as markup, which an id might look like.
    heading = f"user {user}: the last {len(recent)} of {len(known)} training items, newest first"
    console.print(Text(heading), soft_wrap=True)
    console.print(history)
    console.print(f"listed next, {split} split", soft_wrap=True)
    console.print(table)
    console.print("* visited later, held out from training" if visited else "nothing of this user is held out")


def _cell(items: "np.ndarray", rank: int, titles: Sequence[str], visited: set[int]) -> Any:
    from rich.text import Text

    if rank >= len(items):
        return ""
    item = int(items[rank])
    return Text(f"* {titles[item - 1]}", "bold green") if item in visited else Text(titles[item - 1])


if __name__ == "__main__":
    command_line.run(show)
