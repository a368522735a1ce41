"""Whether a cell can be trained for the tables."""

from pipelines.distill_flags import distill_flags
from pipelines.published import COLUMNS
from rd_tf.data.dataset import load_manifest
from rd_tf.storage import InputError


def check_trainable(arguments: list[str]) -> None:
    """Refuses before training what would come out after hours of it.

    Args:
        arguments: a cell's, of `pipelines.distill`; the first is its flagfile.

    Raises:
        InputError: the flagfile or the dataset is missing or cannot be used, a metric of the tables would be, or the
            flagfile names a teacher.
    """
    values = distill_flags(arguments)
    load_manifest(values["dataset"])
    if values["teacher"]:
        raise InputError(
            f"{arguments[0]} has --teacher={values['teacher']}; leave it out, since a cell trains its own teacher"
        )
    cutoffs = {name.partition("@")[2] for name in COLUMNS} - {""}
    if not cutoffs <= {text.strip() for text in values["cutoffs"]}:
        wanted = ",".join(sorted(cutoffs, key=int))
        raise InputError(f"{arguments[0]} has --cutoffs={','.join(values['cutoffs'])}; the tables need {wanted} too")
