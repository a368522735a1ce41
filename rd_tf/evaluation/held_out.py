"""What evaluation needs of the data, whatever the model: held-out items, seen items, queries."""

import dataclasses

import numpy as np

from rd_tf.data.interactions import Interactions, user_offsets
from rd_tf.data.split import Split
from rd_tf.data.windows import last_sequences
from rd_tf.errors import InputError


@dataclasses.dataclass(frozen=True)
class HeldOut:
    """Distinct held-out items ("targets") of the users that have some.

    Attributes:
        users: `[users] int32`, ascending; only users with a target.
        sequences: `[users, L] int32`, their last L training items, oldest first, 0 = padding.
        targets: `[targets] int32`, distinct within a user; those of `users[i]` are
            `targets[target_offsets[i]:target_offsets[i + 1]]`, never none.
        target_offsets: `[users + 1] int64`.
        seen: `[seen] int32`, the users' distinct training items, laid out in the same way.
        seen_offsets: `[users + 1] int64`.
        is_candidate: `[num_items + 1] bool`, the items that occur in the training rows. No other can be ranked: a
            target that is none is a miss, and counts in every denominator.
        counts: `users` evaluated, `users_without_targets`, `targets`, `unknown_targets` (no candidates),
            `repeated_targets` (held-out items that the same user was trained on; they are excluded from the user's
            list, so they are no targets).
    """

    users: np.ndarray
    sequences: np.ndarray
    targets: np.ndarray
    target_offsets: np.ndarray
    seen: np.ndarray
    seen_offsets: np.ndarray
    is_candidate: np.ndarray
    counts: dict[str, int]


def make_held_out(interactions: Interactions, split: Split, sequence_length: int) -> HeldOut:
    """Lays out what is to be ranked.

    Args:
        interactions: the dataset.
        split: which rows are training and which are held out.
        sequence_length: L of the model.

    Raises:
        InputError: nobody has a held-out item.
    """
    rows = interactions.num_item_rows
    # One sorted number a (user, item): sets of items of all users at once.
    keys = interactions.users.astype(np.int64) * rows + interactions.items
    seen_keys, held_out_keys = np.unique(keys[split.train]), np.unique(keys[split.held_out])
    repeated = np.isin(held_out_keys, seen_keys, assume_unique=True)
    target_users, targets = np.divmod(held_out_keys[~repeated], rows)
    if not len(targets):
        raise InputError(f"no user has an item to rank in the split {split.name!r}; give users longer histories")
    users = np.unique(target_users)
    seen_users, seen = np.divmod(seen_keys, rows)
    has_targets = np.isin(seen_users, users)
    is_candidate = np.zeros(rows, bool)
    is_candidate[interactions.items[split.train]] = True
    return HeldOut(
        users=users.astype(np.int32),
        sequences=last_sequences(interactions, split.train, sequence_length)[users],
        targets=targets.astype(np.int32),
        target_offsets=user_offsets(np.searchsorted(users, target_users), len(users)),
        seen=seen[has_targets].astype(np.int32),
        seen_offsets=user_offsets(np.searchsorted(users, seen_users[has_targets]), len(users)),
        is_candidate=is_candidate,
        counts={
            "users": len(users),
            "users_without_targets": interactions.num_users - len(users),
            "targets": len(targets),
            "unknown_targets": int(np.count_nonzero(~is_candidate[targets])),
            "repeated_targets": int(np.count_nonzero(repeated)),
        },
    )
