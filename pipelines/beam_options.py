"""How Beam jobs are run: the options of the runner, and a worker's complaint as one sentence."""

import contextlib
import io
import logging
import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from rd_tf.errors import InputError

if TYPE_CHECKING:
    from apache_beam import Pipeline
    from apache_beam.options.pipeline_options import PipelineOptions

_HERE = "DirectRunner"
# What Beam makes of an exception: where it came from is added, and from another process it comes as a text.
_WHERE = re.compile(r" \[while running .*", re.DOTALL)
_IN_A_TEXT = re.compile(r"rd_tf\.errors\.InputError: (.*?)(?: \[while running|\\n|\n|$)")


def check_beam(runner: str, beam_options: Sequence[str]) -> None:
    """Checks that Beam is installed and can make sense of the flags.

    Args:
        runner: Beam's name for it.
        beam_options: name=value or the bare name of a switch.

    Raises:
        InputError: it is not, or cannot.
    """
    # Beam warns of libraries that only Google's own storage needs.
    logging.getLogger().addFilter(_is_no_warning_of_apitools)
    try:
        from apache_beam import Pipeline
    except ImportError:
        raise InputError("Apache Beam is not installed; pip install -r requirements-beam.txt") from None
    try:
        # Made in order to be refused: runners check their options here.
        Pipeline(options=_options(runner, beam_options))
    except (ValueError, ImportError, AttributeError) as error:
        raise InputError(f"{_given(runner, beam_options)}: {error}") from None


def run_pipeline(build: Callable[["Pipeline"], object], runner: str, beam_options: Sequence[str]) -> None:
    """Builds a pipeline and waits until it is done.

    Args:
        build: puts the transforms into the pipeline.
        runner: as for `check_beam`.
        beam_options: as for `check_beam`.

    Raises:
        InputError: a worker raised it, or the options are none.
        RuntimeError: the pipeline failed.
    """
    from apache_beam import Pipeline
    from apache_beam.runners.portability.fn_api_runner import FnApiRunner
    from apache_beam.runners.runner import PipelineState

    # The sentence is enough.
    logging.getLogger("apache_beam.runners.common").addFilter(_is_no_input_error)
    # Beam's DirectRunner would try Prism first, a Go program that it downloads; this is the one it falls back to.
    pipeline = Pipeline(FnApiRunner() if runner == _HERE else runner, _options(runner, beam_options))
    try:
        build(pipeline)
        state = pipeline.run().wait_until_finish()
    except InputError as error:
        raise InputError(_WHERE.sub("", str(error))) from None
    except Exception as error:
        found = _IN_A_TEXT.findall(str(error))
        if not found:
            raise
        raise InputError(found[-1]) from None
    if state not in (PipelineState.DONE, None):
        raise RuntimeError(f"the pipeline ended as {state} on {runner}")


def _options(runner: str, beam_options: Sequence[str]) -> "PipelineOptions":
    from apache_beam.options.pipeline_options import PipelineOptions

    words = [f"--runner={runner}", *(f"--{option.lstrip('-')}" for option in beam_options)]
    # A value that is none makes argparse print all of Beam's options, and the reason in the last line.
    printed = io.StringIO()
    try:
        with contextlib.redirect_stderr(printed):
            options = PipelineOptions(words)
            unknown = options.get_all_options(retain_unknown_options=True).keys() - options.get_all_options().keys()
    except SystemExit:
        reason = printed.getvalue().splitlines()[-1].partition("error: ")[2]
        raise InputError(f"{_given(runner, beam_options)}: {reason}") from None
    # Job servers have options of their own; these two runners have none.
    if unknown and runner in (_HERE, "DataflowRunner"):
        names = ", ".join(sorted(unknown))
        raise InputError(f"{_given(runner, beam_options)}: {runner} has no option {names}")
    return options


def _given(runner: str, beam_options: Sequence[str]) -> str:
    return f"--runner={runner} --beam_options={','.join(beam_options)}"


def _is_no_warning_of_apitools(record: logging.LogRecord) -> bool:
    return not record.getMessage().startswith("apitools not found")


def _is_no_input_error(record: logging.LogRecord) -> bool:
    return not (record.exc_info and isinstance(record.exc_info[1], InputError))
