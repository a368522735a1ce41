"""Evaluates a trained model: python -m rd_tf.evaluate --run_dir=... --dataset=..."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rd_tf import command_line, run_directory
from rd_tf.flag_definitions import Protocol, protocol_of
from rd_tf.storage import InputError


def evaluate(
    *,
    run_dir: str,
    dataset: str,
    split: str,
    cutoffs: list[str],
    block_size: int,
    output: str,
    split_by: str = "auto",
    seen_items: str = "auto",
    import_module: Sequence[str] = (),
) -> dict[str, Any]:
    """Ranks the whole catalogue for every user with held-out items and measures where those items stand.

    Items of the user's training history are left out of the list, unless --seen_items=keep. A model trained for
    --split=validation may be evaluated on either split (on test the validation rows count as history: left out of the
    list, read by the query); a model trained for --split=test was trained on the validation rows and is refused there.
    Writes metrics.json and per_user.parquet, and prints a table.

    Returns:
        What metrics.json holds.

    Raises:
        InputError: a flag, the run or the dataset cannot be used, or they do not belong together.
    """
    command_line.import_plugins(import_module)
    manifest = run_directory.load_run_manifest(run_dir)
    protocol = protocol_of(split, split_by, seen_items, manifest["split"])
    _check_run(manifest, run_dir, dataset, protocol)
    directory = Path(output) if output else Path(run_dir) / f"evaluate-{protocol.name.replace('/', '-')}"
    if (directory / run_directory.MANIFEST).exists():
        raise InputError(f"--output={output} holds a run or a dataset, whose files it would replace; name another one")

    from rd_tf.runtime import import_quietly

    import_quietly()
    from rd_tf.data.windows import open_dataset
    from rd_tf.evaluation.evaluator import evaluate_on, save_evaluation
    from rd_tf.models.registry import load_model
    from rd_tf.runtime import share_cores

    share_cores(0)
    data, model = open_dataset(dataset).split(protocol.name), load_model(run_dir)
    evaluation = evaluate_on(model, data, cutoffs, block_size)
    result = save_evaluation(
        evaluation,
        data.name,
        directory,
        model=manifest["model"],
        dataset={"directory": dataset, "fingerprint": manifest["dataset"]["fingerprint"]},
    )
    _print_table(result)
    print(f"wrote {directory / run_directory.METRICS} and {run_directory.PER_USER}")
    return result


def _check_run(manifest: dict[str, Any], run_dir: str, dataset: str, protocol: Protocol) -> None:
    from rd_tf.data.dataset import check_same_dataset

    check_same_dataset(dataset, manifest["dataset"]["fingerprint"], "run_dir", run_dir)
    trained, split = Protocol.of(manifest["split"]), protocol.part
    trained_for = trained.part
    if split == "all":
        raise InputError(
            "--split=all holds nothing out that could be evaluated; give --split=test or --split=validation"
        )
    if trained_for == "all":
        raise InputError(
            f"--run_dir={run_dir} was trained on all rows (--split=all), the {split} items among them; evaluate a run "
            "that was trained with --split=test or --split=validation"
        )
    if trained.by != protocol.by:
        raise InputError(
            f"--run_dir={run_dir} was trained on rows that --split_by={trained.by} chose, so --split_by={protocol.by} "
            f"would hold some of them out; give --split_by={trained.by} or none"
        )
    # Training rows of every split are among those of the test split; among other splits some may be held out.
    if split not in ("test", trained_for):
        raise InputError(
            f"--run_dir={run_dir} was trained for the split {trained_for!r}, whose training rows hold {split} "
            f"items; evaluate with --split=test or train with --split={split}"
        )


def _print_table(result: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    from rd_tf.evaluation.held_out import left_out_line, users_line

    values = {name.partition("@")[::2]: value for name, value in result["metrics"].items()}
    cutoffs = list(dict.fromkeys(n for _, n in values if n))
    counts = result["counts"]
    table = Table(title=f"{result['model']['class']}, {result['split']} split, {users_line(counts)}")
    table.add_column("metric")
    for n in cutoffs:
        table.add_column(f"@{n}", justify="right")
    for name in dict.fromkeys(name for name, n in values if n):
        table.add_row(name, *(f"{values[name, n]:.4f}" for n in cutoffs))
    table.add_section()
    table.add_row("map", f"{values['map', '']:.4f}")
    console = Console()
    console.print(table)
    console.print(left_out_line(counts, Protocol.of(result["split"]).keeps_seen), soft_wrap=True)


command_line.make_callable(__name__, "rd_tf.evaluation.evaluator:evaluate_on")

if __name__ == "__main__":
    command_line.run(evaluate)
