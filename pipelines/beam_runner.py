"""Runs Beam pipelines on whatever runner the flags name."""

import contextlib
import io
import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from rd_tf.storage import InputError

if TYPE_CHECKING:
    import apache_beam as beam

LOCAL = "DirectRunner"


def check_beam(runner: str, beam_options: Sequence[str]) -> None:
    """Checks that Beam is installed and can make sense of the flags.

    Raises:
        InputError: it is not, or cannot.
    """
    # Beam warns at its import of clients of Google's cloud that are not installed, whoever may want them.
    logging.disable(logging.WARNING)
    try:
        import apache_beam
    except ImportError:
        raise InputError("Apache Beam is not installed; pip install -r requirements-beam.txt") from None
    finally:
        logging.disable(logging.NOTSET)
    from apache_beam.options.pipeline_options import PipelineOptions

    for option in beam_options:
        if not option or option.startswith("-") or option.startswith("runner="):
            raise InputError(f"--beam_options: {option!r} is no name=value, such as temp_location=gs://bucket/tmp")
    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint):
            PipelineOptions([f"--{option}" for option in beam_options]).get_all_options()
    except SystemExit:
        last = complaint.getvalue().strip().splitlines()[-1].partition("error: ")[2]
        raise InputError(f"--beam_options={','.join(beam_options)} cannot be used ({last})") from None
    try:
        apache_beam.runners.create_runner(runner)
    except (ValueError, ImportError, AttributeError) as error:
        first = str(error).splitlines()[0]
        raise InputError(f"--runner={runner} cannot be used ({first}); try DirectRunner") from None


def run_pipeline(build: Callable[["beam.Pipeline"], Any], runner: str, beam_options: Sequence[str]) -> None:
    """Builds a pipeline and waits until it is done.

    Args:
        build: puts the transforms into the pipeline.
        runner: Beam's name for it.
        beam_options: name=value or the bare name of a switch.

    Raises:
        RuntimeError: the pipeline failed.
    """
    import apache_beam
    from apache_beam.options.pipeline_options import PipelineOptions
    from apache_beam.runners.portability.fn_api_runner import FnApiRunner
    from apache_beam.runners.runner import PipelineState

    options = PipelineOptions([f"--{option}" for option in beam_options])
    # Beam's DirectRunner would try Prism first, a Go program that it downloads; this is the one it falls back to.
    pipeline = apache_beam.Pipeline(runner=FnApiRunner() if runner == LOCAL else runner, options=options)
    build(pipeline)
    state = pipeline.run().wait_until_finish()
    if state not in (PipelineState.DONE, None):
        raise RuntimeError(f"the pipeline ended as {state} on {runner}")
