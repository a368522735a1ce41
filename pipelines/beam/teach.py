"""python -m pipelines.beam.teach: the teacher's lists for data larger than one machine, with Apache Beam."""

import contextlib
import dataclasses
import re
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.beam.files import (
    check_beam,
    check_options,
    empty_directory,
    is_remote,
    local_files,
    names_in,
    new_file,
    run_pipeline,
    workers_sentences,
)
from rd_tf import command_line, run_directory
from rd_tf.data.dataset import MANIFEST, check_same_fingerprint, load_manifest, load_shard, shard_file
from rd_tf.data.teacher_lists import (
    Described,
    cache_manifest,
    check_cache,
    check_k,
    is_teacher_cache,
    load_cache_manifest,
)
from rd_tf.data.windows import ShardWindows, windows_fingerprint
from rd_tf.storage import InputError, atomic_directory, json_text
from rd_tf.teacher.cache import Facts, TeachPlan, keeps, keeps_cache, make_plan

if TYPE_CHECKING:
    import apache_beam as beam

_ARRAY = re.compile(r"(items|scores)(-\d{5}-of-\d{5})?\.npy")


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
    seen_items: str = "auto",
    import_module: Sequence[str] = (),
) -> str:
    """Writes the teacher cache that rd_tf.teach would write, byte for byte, one shard of the dataset a work item.

    --teacher, --dataset and --cache may lie wherever Beam has a file system (gs://, s3://, hdfs://) and every worker
    reaches them. Every worker imports the modules of --import_module. A cache that exists and belongs to this teacher
    is kept.
    """
    command_line.import_plugins(import_module)
    for name, value in (("teacher", teacher), ("dataset", dataset)):
        if not value:
            raise InputError(f"--{name} is empty; name a {'run' if name == 'teacher' else name} directory")
    check_beam(runner, beam_options)
    check_options(runner, beam_options)
    with local_files(teacher, [run_directory.MANIFEST]) as directory:
        run = run_directory.load_run_manifest(directory, "teacher")
    with local_files(dataset, [MANIFEST]) as directory:
        described = load_manifest(directory)
    check_same_fingerprint(dataset, described["fingerprint"], run["dataset"]["fingerprint"], "teacher", teacher)
    plan = make_plan(teacher, run, k, mask, block_size, seen_items)
    mask = plan.mask
    place = cache or plan.default_place(teacher)
    if _keeps_cache(place, plan, not cache, force):
        return place
    # Only what is known here; workers check it against items without a training row and the longest history too.
    check_k(k, mask, plan.num_items, plan.target_length, 0)
    # A worker may be in another directory.
    teacher, dataset = (path if is_remote(path) else str(Path(path).absolute()) for path in (teacher, dataset))
    with _cache_place(place) as output, workers_sentences():
        job = _TeachJob(plan, teacher, dataset, len(described.get("shards", [])), output, tuple(import_module))
        run_pipeline(lambda pipeline: _add_steps(pipeline, job), runner, beam_options)
    print(f"teacher cache: {place} (K = {k}, mask {mask})", flush=True)
    return place


def _keeps_cache(directory: str, plan: TeachPlan, is_default_place: bool, force: bool) -> bool:
    """Whether there is a cache that belongs to the plan; else whatever is there may be replaced.

    A cache on this machine is read and checked as a whole. Of a remote one only the manifest is: damaged files are
    found by the training that reads them.

    Args:
        directory: of the cache.
        plan: of the cache.
        is_default_place: whether nobody named the directory.
        force: whether a cache is made anyway.

    Raises:
        InputError: the directory holds something else, which must not be replaced.
    """
    if not is_remote(directory):
        return keeps_cache(Path(directory), plan.key(None), plan.k, force, is_default_place)
    names = names_in(directory)
    # Arrays without a manifest are what a killed job has left.
    exists = bool(names) and not all(_ARRAY.fullmatch(name) for name in names)
    is_cache = MANIFEST in names and _is_remote_cache(directory)
    return keeps(directory, exists, is_cache, lambda: _check_remote(directory, plan), force, is_default_place)


@contextlib.contextmanager
def _cache_place(directory: str) -> Iterator[str]:
    """Where to write the files of a cache, which replaces what is there.

    On this machine they are written beside it, and the cache appears whole when the block ends without an error. On a
    remote file system they are written in place: until the manifest is there, the last of them, it is no cache.
    """
    if not is_remote(directory):
        with atomic_directory(directory, replace=True) as temporary:
            yield str(temporary.absolute())
        return
    empty_directory(directory, first=MANIFEST)
    yield directory


def _check_remote(directory: str, plan: TeachPlan) -> None:
    with local_files(directory, [MANIFEST]) as local:
        check_cache(directory, load_cache_manifest(local), plan.key(None), plan.k)


def _is_remote_cache(directory: str) -> bool:
    with local_files(directory, [MANIFEST]) as local:
        return is_teacher_cache(local)


@dataclasses.dataclass(frozen=True)
class _TeachJob:
    """What every step knows.

    Attributes:
        plan: of the cache.
        teacher: the teacher's run directory.
        dataset: the dataset directory.
        shards: of the dataset; 0 where it is not sharded.
        output: directory that the cache's files are written to.
        import_module: modules that register rankers.
    """

    plan: TeachPlan
    teacher: str
    dataset: str
    shards: int
    output: str
    import_module: tuple[str, ...]

    def cut(self, number: int) -> ShardWindows:
        """The windows of a shard.

        Raises:
            InputError: the shard is damaged, or the dataset is another one by now.
        """
        with local_files(self.dataset, [MANIFEST, shard_file(number, self.shards)]) as directory:
            if load_manifest(directory)["fingerprint"] != self.plan.dataset:
                raise InputError(f"--dataset={self.dataset} was replaced meanwhile; begin again")
            return self.plan.cut(load_shard(directory, number))

    def fingerprint(self, _: object = None) -> str:
        """The fingerprint of the windows of all shards."""
        parts = (self.cut(number).of_the_dataset() for number in range(self.shards or 1))
        return windows_fingerprint(parts, *self.plan.lengths)

    def facts(self, number: int) -> Facts:
        """What the lists of every shard depend on."""
        return Facts.of(self.cut(number), self.plan.num_items)


class _Lister:
    """The teacher, in memory once for all threads of a process, which work on one shard at a time."""

    def __init__(self, job: _TeachJob) -> None:
        from rd_tf.runtime import import_quietly

        import_quietly()
        from rd_tf.models.registry import load_model
        from rd_tf.runtime import share_cores
        from rd_tf.teacher.cache import ShardLists

        share_cores(0)
        command_line.import_plugins(job.import_module)
        names = [run_directory.MANIFEST, run_directory.WEIGHTS]
        with local_files(job.teacher, names) as directory:
            model = load_model(directory, "teacher")
            described = run_directory.load_run_manifest(directory, "teacher")["model"]
        if described["fingerprint"] != job.plan.teacher:
            raise InputError(f"--teacher={job.teacher} was trained again meanwhile; begin again")
        self.lists = ShardLists(job.plan, model)
        # The blocks of one shard fill the cores; a second shard would only take memory.
        self.lock = threading.Lock()


class _TeachShard:
    """Writes a shard's two files.

    It takes the shard's number and the facts about the whole dataset, and gives the number and what the manifest says
    of the files.

    Args:
        job: what every step knows.
    """

    def __init__(self, job: _TeachJob) -> None:
        from apache_beam.metrics import Metrics
        from apache_beam.utils.shared import Shared

        self._job = job
        # Beam keeps what a process has acquired last between the calls.
        self._shared = Shared()
        self._windows = Metrics.counter("beam_teach", "windows")

    def __call__(self, number: int, facts: Facts) -> tuple[int, Described]:
        job = self._job
        facts.check(job.plan)
        lister = self._shared.acquire(lambda: _Lister(job))
        with lister.lock:
            described = lister.lists.write(
                job.cut(number),
                facts.is_candidate,
                lambda name: new_file(job.output, name),
                number,
                job.shards,
                self._windows.inc,
            )
        return number, described


def _write_manifest(_: object, job: _TeachJob, files: dict[int, Described], fingerprint: str) -> None:
    """Writes the cache's manifest, the last of its files."""
    key, in_order = job.plan.key(fingerprint), [files[number] for number in sorted(files)]
    manifest = cache_manifest(key, job.plan.k, in_order, sharded=job.shards > 0)
    with new_file(job.output, MANIFEST) as file:
        file.write(json_text(manifest).encode())


def _add_steps(pipeline: "beam.Pipeline", job: _TeachJob) -> None:
    """Adds all steps to a pipeline: the lists of every shard, the fingerprint of all windows, the manifest."""
    import apache_beam as beam

    # Reshuffled, so that runners do not fuse all shards into one bundle.
    numbers = pipeline | "Shards" >> beam.Create(range(job.shards or 1)) | "Spread" >> beam.Reshuffle()
    facts = numbers | "Facts" >> beam.Map(job.facts) | "OfAllShards" >> beam.CombineGlobally(Facts.together)
    files = numbers | "TeachShard" >> beam.Map(_TeachShard(job), beam.pvalue.AsSingleton(facts))
    windows = pipeline | "All" >> beam.Create([None]) | "Fingerprint" >> beam.Map(job.fingerprint)
    (
        pipeline
        | "Last" >> beam.Create([None])
        | "WriteManifest" >> beam.Map(_write_manifest, job, beam.pvalue.AsDict(files), beam.pvalue.AsSingleton(windows))
    )


if __name__ == "__main__":
    # Workers in other processes find this module's classes under its name, but not under __main__.
    from pipelines.beam.teach import beam_teach

    command_line.run(beam_teach)
