"""The steps of the Beam job that makes a teacher's lists; they run in the workers."""

import dataclasses
import threading
from collections.abc import Iterable, Iterator

import apache_beam as beam
import numpy as np
from apache_beam.metrics import Metrics
from apache_beam.utils.shared import Shared

from pipelines.beam_paths import local_files, new_file
from rd_tf import run_directory
from rd_tf.data.dataset import MANIFEST, load_manifest, load_shard
from rd_tf.data.interaction_files import shard_file
from rd_tf.data.teacher_lists import Described, cache_manifest
from rd_tf.data.windows import ShardWindows
from rd_tf.storage import InputError, json_text
from rd_tf.teacher.cache import Survey, TeachPlan, survey_windows
from rd_tf.teacher.top_k import check_k


@dataclasses.dataclass(frozen=True)
class TeachJob:
    """What every step knows.

    Attributes:
        plan: of the cache.
        teacher: the teacher's run directory.
        dataset: the dataset directory.
        shards: of the dataset; 0 where it is not sharded.
        output: directory that the cache's files are written to.
    """

    plan: TeachPlan
    teacher: str
    dataset: str
    shards: int
    output: str

    def cut(self, number: int) -> ShardWindows:
        """The windows of a shard.

        Raises:
            InputError: the shard is damaged, or the dataset is another one by now.
        """
        with local_files(self.dataset, [MANIFEST, shard_file(number, self.shards)]) as directory:
            if load_manifest(directory)["fingerprint"] != self.plan.dataset:
                raise InputError(f"--dataset={self.dataset} was replaced meanwhile; begin again")
            return self.plan.cut(load_shard(directory, number))

    def survey(self, _: object = None) -> Survey:
        """Goes over the windows of all shards."""
        return survey_windows(self.plan, self.cut, self.shards or 1)

    def facts(self, number: int) -> "ShardFacts":
        """What the lists of every shard depend on."""
        seen = self.cut(number).seen
        return ShardFacts(seen.longest, seen.occurring(self.plan.num_items))


@dataclasses.dataclass(frozen=True)
class ShardFacts:
    """What must be known of all shards before the first list is made.

    Attributes:
        longest: most training items of a user.
        is_candidate: `[num_items + 1] bool`, the items that have a training row.
    """

    longest: int
    is_candidate: np.ndarray


def merge_facts(facts: Iterable[ShardFacts]) -> ShardFacts:
    """Facts about some shards together."""
    longest, is_candidate = 0, np.zeros(1, bool)
    for shard in facts:
        longest, is_candidate = max(longest, shard.longest), is_candidate | shard.is_candidate
    return ShardFacts(longest, is_candidate)


class _Lister:
    """The teacher, in memory once for all threads of a process, which work on one shard at a time."""

    def __init__(self, job: TeachJob) -> None:
        from rd_tf.runtime import import_quietly

        import_quietly()
        from rd_tf.models.registry import load_model
        from rd_tf.runtime import share_cores
        from rd_tf.teacher.cache import ShardLists

        share_cores(0)
        names = [run_directory.MANIFEST, run_directory.WEIGHTS]
        with local_files(job.teacher, names) as directory:
            model = load_model(directory, "teacher")
            described = run_directory.load_run_manifest(directory, "teacher")["model"]
        if described["fingerprint"] != job.plan.teacher:
            raise InputError(f"--teacher={job.teacher} was trained again meanwhile; begin again")
        self.lists = ShardLists(job.plan, model)
        # The blocks of one shard fill the cores; a second shard would only take memory.
        self.lock = threading.Lock()


class TeachShard(beam.DoFn):
    """Writes a shard's two files.

    It takes the shard's number and the facts about the whole dataset, and gives the number and what the manifest says
    of the files.

    Args:
        job: what every step knows.
    """

    def __init__(self, job: TeachJob) -> None:
        self._job = job
        self._shared = Shared()
        self._windows = Metrics.counter("beam_teach", "windows")

    def setup(self) -> None:
        self._lister = self._shared.acquire(lambda: _Lister(self._job))

    def process(self, number: int, facts: ShardFacts) -> Iterator[tuple[int, Described]]:
        job, plan = self._job, self._job.plan
        candidates = int(facts.is_candidate.sum())
        check_k(plan.k, plan.mask, candidates, plan.target_length, facts.longest)
        with self._lister.lock:
            described = self._lister.lists.write(
                job.cut(number),
                facts.is_candidate,
                lambda name: new_file(job.output, name),
                number,
                job.shards,
                self._windows.inc,
            )
        yield number, described


def write_manifest(_: object, job: TeachJob, files: dict[int, Described], survey: Survey) -> None:
    """Writes the cache's manifest, the last of its files."""
    key, in_order = job.plan.key(survey.fingerprint), [files[number] for number in sorted(files)]
    manifest = cache_manifest(key, job.plan.k, in_order, sharded=job.shards > 0)
    with new_file(job.output, MANIFEST) as file:
        file.write(json_text(manifest).encode())


def add_steps(pipeline: beam.Pipeline, job: TeachJob) -> None:
    """Adds all steps to a pipeline: the lists of every shard, the fingerprint of all windows, the manifest."""
    # Reshuffled, so that runners do not fuse all shards into one bundle.
    numbers = pipeline | "Shards" >> beam.Create(range(job.shards or 1)) | "Spread" >> beam.Reshuffle()
    facts = numbers | "Facts" >> beam.Map(job.facts) | "OfAllShards" >> beam.CombineGlobally(merge_facts)
    files = numbers | "TeachShard" >> beam.ParDo(TeachShard(job), beam.pvalue.AsSingleton(facts))
    survey = pipeline | "All" >> beam.Create([None]) | "Fingerprint" >> beam.Map(job.survey)
    (
        pipeline
        | "Last" >> beam.Create([None])
        | "WriteManifest" >> beam.Map(write_manifest, job, beam.pvalue.AsDict(files), beam.pvalue.AsSingleton(survey))
    )
