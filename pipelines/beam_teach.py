"""python -m pipelines.beam_teach: the teacher's lists for data larger than one machine, with Apache Beam."""

from pathlib import Path

from rd_tf import command_line
from rd_tf.storage import InputError


def beam_teach(
    *,
    teacher: str,
    dataset: str,
    cache: str,
    k: int,
    mask: str,
    block_size: int,
    force: bool,
    runner: str,
    beam_options: list[str],
) -> str:
    """Writes the teacher cache that rd_tf.teach would write, byte for byte, one shard of the dataset a work item.

    --teacher, --dataset and --cache may lie wherever Beam has a file system (gs://, s3://, hdfs://) and every worker
    reaches them. A cache that exists and belongs to this teacher is kept.
    """
    for name, value in (("teacher", teacher), ("dataset", dataset)):
        if not value:
            raise InputError(f"--{name} is empty; name a {'run' if name == 'teacher' else name} directory")
    from pipelines.beam_options import check_options, workers_sentences
    from pipelines.beam_runner import check_beam, run_pipeline

    check_beam(runner, beam_options)
    check_options(runner, beam_options)
    from pipelines.beam_paths import is_remote, local_files
    from pipelines.beam_teach_place import cache_place, keeps_cache
    from pipelines.beam_teach_steps import TeachJob, add_steps
    from rd_tf import run_directory
    from rd_tf.data.dataset import MANIFEST, check_same_fingerprint, load_manifest
    from rd_tf.teacher.cache import make_plan
    from rd_tf.teacher.top_k import check_k

    with local_files(teacher, [run_directory.MANIFEST]) as directory:
        run = run_directory.load_run_manifest(directory, "teacher")
    with local_files(dataset, [MANIFEST]) as directory:
        described = load_manifest(directory)
    check_same_fingerprint(dataset, described["fingerprint"], run["dataset"]["fingerprint"], "teacher", teacher)
    plan = make_plan(teacher, run, k, mask, block_size)
    place = cache or plan.default_place(teacher)
    if keeps_cache(place, plan, not cache, force):
        print(f"teacher cache kept: {place}", flush=True)
        return place
    # Items without a training row and, with the mask "seen", the longest history count too; workers find them.
    check_k(k, mask, plan.num_items, plan.target_length, 0)
    # A worker may be in another directory.
    teacher, dataset = (path if is_remote(path) else str(Path(path).absolute()) for path in (teacher, dataset))
    with cache_place(place) as output, workers_sentences():
        job = TeachJob(plan, teacher, dataset, len(described.get("shards", [])), output)
        run_pipeline(lambda pipeline: add_steps(pipeline, job), runner, beam_options)
    print(f"teacher cache: {place} (K = {k}, mask {mask})", flush=True)
    return place


if __name__ == "__main__":
    command_line.run(beam_teach)
