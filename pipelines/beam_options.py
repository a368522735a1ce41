"""What Beam's runners make of their options, and of a worker's complaint, as one sentence."""

import contextlib
import logging
import re
from collections.abc import Iterator, Sequence

from rd_tf.storage import InputError

# What Beam makes of an exception: where it came from is added, and from another process it comes as a text.
_WHERE = re.compile(r" \[while running .*", re.DOTALL)
_IN_A_TEXT = re.compile(r"rd_tf\.errors\.InputError: (.*?)(?: \[while running|\\n|\n|$)")
# Job servers have options of their own; these have none.
_KNOW_ALL_OPTIONS = ("DirectRunner", "DataflowRunner")


def check_options(runner: str, beam_options: Sequence[str]) -> None:
    """Checks that a runner has these options and lacks none, before anything is replaced for its sake.

    Args:
        runner: Beam's name for it.
        beam_options: name=value or the bare name of a switch, as `pipelines.beam_runner.check_beam` lets them pass.

    Raises:
        InputError: an option is unknown or missing.
    """
    from apache_beam import Pipeline
    from apache_beam.options.pipeline_options import PipelineOptions

    given = f"--runner={runner} --beam_options={','.join(beam_options)}"
    # Beam tells of unknown options in a log line.
    logging.disable(logging.WARNING)
    try:
        options = PipelineOptions([f"--runner={runner}", *(f"--{option}" for option in beam_options)])
        unknown = options.get_all_options(retain_unknown_options=True).keys() - options.get_all_options().keys()
        # Made in order to be refused: runners look for what they need here.
        Pipeline(options=options)
    except ValueError as error:
        raise InputError(f"{given} cannot be used ({error})") from None
    finally:
        logging.disable(logging.NOTSET)
    if unknown and runner in _KNOW_ALL_OPTIONS:
        raise InputError(f"{given} cannot be used ({runner} has no option {', '.join(sorted(unknown))})")


@contextlib.contextmanager
def workers_sentences() -> Iterator[None]:
    """Turns a failed pipeline into the InputError that a worker raised, if one did."""
    # The sentence is enough.
    logging.getLogger("apache_beam.runners.common").addFilter(_is_no_input_error)
    try:
        yield
    except InputError as error:
        raise InputError(_WHERE.sub("", str(error))) from None
    except Exception as error:
        found = _IN_A_TEXT.findall(str(error))
        if not found:
            raise
        raise InputError(found[-1]) from None


def _is_no_input_error(record: logging.LogRecord) -> bool:
    return not (record.exc_info and isinstance(record.exc_info[1], InputError))
