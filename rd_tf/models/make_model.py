"""A ranker by name, from flags."""

from typing import Any

from rd_tf.errors import InputError
from rd_tf.models.caser import Caser
from rd_tf.models.fossil import Fossil
from rd_tf.models.model_flags import MODEL_FLAGS
from rd_tf.models.ranker import SequenceRanker

MODELS: dict[str, type[SequenceRanker]] = {"caser": Caser, "fossil": Fossil}


def make_model(flags: dict[str, Any], num_users: int, num_items: int) -> SequenceRanker:
    """Makes an untrained ranker.

    Args:
        flags: those of `rd_tf.train`.
        num_users: users are numbered 0 .. num_users - 1.
        num_items: items are numbered 1 .. num_items.

    Raises:
        InputError: the flags leave the model without a part it needs.
    """
    if flags["model"] == "caser" and flags["vertical_filters"] + flags["horizontal_filters"] == 0:
        raise InputError(
            "--vertical_filters=0 and --horizontal_filters=0 leave Caser without filters; raise one of them"
        )
    names = ("sequence_length", "dim", "seed", *MODEL_FLAGS[flags["model"]])
    arguments = {name: flags[name] for name in names}
    unknown_user = flags["user_dropout"] > 0
    return MODELS[flags["model"]](
        num_users, num_items, **arguments, unknown_user=unknown_user, dtype=flags["dtype_policy"]
    )
