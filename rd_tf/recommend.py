"""python -m rd_tf.recommend: lists the best items for every user, in a file."""

from collections.abc import Sequence
from pathlib import Path

from rd_tf import command_line, run_directory
from rd_tf.flag_definitions import protocol_of
from rd_tf.storage import InputError


def recommend(
    *,
    run_dir: str,
    saved_model: str,
    signature: str,
    dataset: str,
    k: int,
    users: str,
    output: str,
    user_column: str,
    item_column: str,
    block_size: int,
    force: bool,
    seen_items: str = "auto",
    import_module: Sequence[str] = (),
) -> str:
    """Writes the K best items for every user of a dataset (or those of --users) as raw ids to a .parquet or .csv file.

    The model is a run directory (--run_dir) or a signature of a SavedModel (--saved_model). All of a user's items in
    the dataset, held-out ones too, are what the user has visited so far: the model is asked what comes after the last
    of them, and none of them is listed, unless --seen_items=keep. The file has the columns --user_column, rank (from
    1), --item_column and score, user after user, best first; rd_tf.teach --lists reads it. Users with fewer than K
    items left have shorter lists.

    Returns:
        The file's path.

    Raises:
        InputError: a flag, the model or the dataset cannot be used, or they do not belong together.
    """
    command_line.import_plugins(import_module)
    if not (run_dir or saved_model) or (run_dir and saved_model):
        raise InputError("give either --run_dir, a run directory, or --saved_model, an export")
    if not output or Path(output).suffix not in (".parquet", ".csv"):
        raise InputError(f"--output={output} has to end in .parquet or .csv; name such a file")
    if Path(output).exists() and (not force or Path(output).is_dir()):
        raise InputError(f"--output={output} exists already; name another file or pass --force to replace it")
    if len({user_column, item_column, "rank", "score"}) < 4:
        raise InputError(
            f"--user_column={user_column}, --item_column={item_column}, rank and score need a name of their own each"
        )
    manifest = None
    if run_dir:
        from rd_tf.data.dataset import check_same_dataset

        manifest = run_directory.load_run_manifest(run_dir)
        check_same_dataset(dataset, manifest["dataset"]["fingerprint"], "run_dir", run_dir)

    from rd_tf.runtime import import_quietly

    import_quietly()
    import numpy as np

    from rd_tf.data.windows import open_dataset
    from rd_tf.runtime import progress_bar, share_cores
    from rd_tf.teacher.user_lists import ranker_lists, read_user_file, saved_model_user_lists, write_user_lists

    share_cores(0)
    data = open_dataset(dataset)
    # Held-out items are visited items, too.
    protocol = protocol_of("all", "auto", seen_items, manifest["split"] if manifest else "")
    interactions, visited = data.interactions, data.split("all", seen_items=protocol.seen_items)
    if users:
        chosen = read_user_file(users, interactions.user_ids)
    else:
        chosen = np.arange(interactions.num_users, dtype=np.int32)
    if manifest:
        from rd_tf.models.registry import load_model

        is_candidate = data.split(manifest["split"]).is_candidate
        lists = ranker_lists(load_model(run_dir), visited, k, is_candidate, block_size)
        model = None
    else:
        from rd_tf.teacher.saved_model import SavedModelLists

        model = SavedModelLists(saved_model, signature, interactions, "skip")
        lists = saved_model_user_lists(model, visited, k, block_size)
    with progress_bar("recommendations", len(chosen), "users") as advance:
        columns = {"user_column": user_column, "item_column": item_column}
        rows, short = write_user_lists(output, lists, chosen, interactions, k, advance, columns)
    counted = "".join(
        f", {count:,} {name} left out" for name, count in (model.counts if model else {}).items() if count
    )
    print(f"wrote {output}: {rows:,} rows, {len(chosen):,} users, {short:,} of them with fewer than {k} items{counted}")
    return output


if __name__ == "__main__":
    command_line.run(recommend)
