"""What evaluation needs of the data, whatever the model: held-out items, seen items, queries; and the long tail."""

import dataclasses

import numpy as np

from rd_tf.data.interactions import Interactions, distinct_keys
from rd_tf.data.windows import Split, SplitData, last_sequences, user_blocks
from rd_tf.storage import InputError


@dataclasses.dataclass(frozen=True)
class HeldOut:
    """Distinct held-out items ("targets") of the users that have some.

    Attributes:
        users: `[users] int32`, ascending; only users with a target.
        sequences: `[users, L] int32`, their last L training items, oldest first, 0 = padding.
        targets: `[targets] int32`, distinct within a user; those of `users[i]` are
            `targets[target_offsets[i]:target_offsets[i + 1]]`, never none.
        target_offsets: `[users + 1] int64`.
        seen: `[seen] int32`, the users' distinct training items, laid out in the same way; none where seen items are
            kept, since these are what is left out of a list.
        seen_offsets: `[users + 1] int64`.
        is_candidate: `[num_items + 1] bool`, the items that occur in the training rows. No other can be ranked: a
            target that is none is a miss, and counts in every denominator.
        counts: `users` evaluated, `users_without_targets`, `targets`, `unknown_targets` (no candidates),
            `repeated_targets` (held-out items that the same user was trained on; they are excluded from the user's
            list, so they are no targets, unless seen items are kept). By time, `unknown_users` too, who have a
            held-out item and no training row; they are left out, and not among those without targets.
    """

    users: np.ndarray
    sequences: np.ndarray
    targets: np.ndarray
    target_offsets: np.ndarray
    seen: np.ndarray
    seen_offsets: np.ndarray
    is_candidate: np.ndarray
    counts: dict[str, int]

    def part(self, first: int, last: int) -> "HeldOut":
        """What belongs to the users of places first .. last - 1; the counts stay those of all."""
        if (first, last) == (0, len(self.users)):
            return self
        rows, seen_rows = self.target_offsets[first : last + 1], self.seen_offsets[first : last + 1]
        return dataclasses.replace(
            self,
            users=self.users[first:last],
            sequences=self.sequences[first:last],
            targets=self.targets[rows[0] : rows[-1]],
            target_offsets=rows - rows[0],
            seen=self.seen[seen_rows[0] : seen_rows[-1]],
            seen_offsets=seen_rows - seen_rows[0],
        )


def make_held_out(data: SplitData, sequence_length: int) -> HeldOut:
    """Lays out what is to be ranked.

    Args:
        data: the dataset, and which of its rows are training and which are held out.
        sequence_length: L of the model.

    Raises:
        InputError: nobody has a held-out item.
    """
    interactions, split = data.interactions, data.split
    keeps_seen = data.protocol.keeps_seen
    parts = [_block(interactions, split, block, keeps_seen) for block in user_blocks(interactions.users)]
    unknown = sum(part.unknown for part in parts)
    if not sum(len(part.targets) for part in parts):
        known = sum(part.repeated for part in parts)
        raise InputError(
            f"no user has an item to rank in the split {split.name!r}; "
            + (
                f"the {known:,} held-out items are all known to their users, and --seen_items=keep ranks them"
                if known
                else "give users longer histories"
            )
        )
    users = np.concatenate([part.users for part in parts])
    targets = np.concatenate([part.targets for part in parts])
    return HeldOut(
        users=users.astype(np.int32),
        sequences=last_sequences(interactions, split.train, sequence_length)[users],
        targets=targets,
        target_offsets=_offsets([part.target_counts for part in parts]),
        seen=np.concatenate([part.seen for part in parts]),
        seen_offsets=_offsets([part.seen_counts for part in parts]),
        is_candidate=data.is_candidate,
        counts={
            "users": len(users),
            "users_without_targets": interactions.num_users - len(users) - unknown,
            "targets": len(targets),
            "unknown_targets": int(np.count_nonzero(~data.is_candidate[targets])),
            "repeated_targets": sum(part.repeated for part in parts),
            **({"unknown_users": unknown} if data.protocol.by == "time" else {}),
        },
    )


def users_line(counts: dict[str, int]) -> str:
    """Of whom a metric is the mean, in words; `counts` as of `HeldOut`."""
    users = counts["users"]
    return f"over {users:,} of {users + counts['users_without_targets'] + counts.get('unknown_users', 0):,} users"


def left_out_line(counts: dict[str, int], keeps_seen: bool = False) -> str:
    """Which users and held-out items are ranked and which are not, in a sentence; `counts` as of `HeldOut`."""
    unknown = counts.get("unknown_users", 0)
    repeated = f"{counts['repeated_targets']:,} that their user has in training"
    return (
        f"ranked for {users_line(counts).removeprefix('over ')} ({counts['users_without_targets']:,} have nothing to "
        f"rank{f', {unknown:,} no training row' if unknown else ''}): {counts['targets']:,} held-out items, "
        f"{counts['unknown_targets']:,} of them without a training row, which are misses; "
        + (f"{repeated} are ranked like others" if keeps_seen else f"left out are {repeated}")
    )


@dataclasses.dataclass(frozen=True)
class _Part:
    users: np.ndarray
    targets: np.ndarray
    target_counts: np.ndarray
    seen: np.ndarray
    seen_counts: np.ndarray
    repeated: int
    unknown: int


def _block(interactions: Interactions, split: Split, block: slice, keeps_seen: bool) -> _Part:
    rows, first = interactions.num_item_rows, interactions.users[block.start]

    def keys(mask: np.ndarray) -> np.ndarray:
        return distinct_keys(interactions.users[block][mask[block]], interactions.items[block][mask[block]], rows)

    seen_keys, held_out_keys = keys(split.train), keys(split.held_out)
    repeated = np.isin(held_out_keys, seen_keys, assume_unique=True)
    target_users, targets = np.divmod(held_out_keys if keeps_seen else held_out_keys[~repeated], rows)
    seen_users, seen = np.divmod(seen_keys, rows)
    size = interactions.users[block.stop - 1] - first + 1
    num_targets, num_seen = (np.bincount(owners - first, minlength=size) for owners in (target_users, seen_users))
    # By time, users come new; by the other rules, everybody has a first row.
    is_known = (num_seen > 0) | (split.protocol.by != "time")
    unknown = int(np.count_nonzero(num_targets[~is_known]))
    targets = targets[is_known[target_users - first]]
    users = np.flatnonzero(num_targets * is_known)
    kept = seen[num_targets[seen_users - first] > 0]
    if keeps_seen:
        kept, num_seen = kept[:0], np.zeros_like(num_seen)
    return _Part(
        users=first + users,
        targets=targets.astype(np.int32),
        target_counts=num_targets[users],
        seen=kept.astype(np.int32),
        seen_counts=num_seen[users],
        repeated=int(np.count_nonzero(repeated)),
        unknown=unknown,
    )


def _offsets(counts: list[np.ndarray]) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(np.concatenate(counts))])


def tail_items(data: SplitData, share: float = 0.8) -> np.ndarray:
    """The least popular items of a catalogue: those with fewest training rows.

    Items without a training row belong to nobody's list and are not counted. Of items that are equally popular, those
    with the lower numbers are taken first.

    Args:
        data: the dataset and its split.
        share: of the items with a training row, above 0 and at most 1; rounded down to a whole number of them.

    Returns:
        `[num_items + 1] bool`.

    Raises:
        ValueError: the share is out of range.
    """
    if not 0 < share <= 1:
        raise ValueError(f"share must be above 0 and at most 1; received {share}")
    counts = np.bincount(data.items, minlength=data.num_items + 1)
    items = np.flatnonzero(data.is_candidate)
    ascending = items[np.argsort(counts[items], kind="stable")]
    is_tail = np.zeros(data.num_items + 1, bool)
    # Without the tiny addend .8 * 5 could come to 3.
    is_tail[ascending[: int(share * len(items) + 1e-9)]] = True
    return is_tail


def recall_of_tail(ranks: np.ndarray, held_out: HeldOut, is_tail: np.ndarray, n: int = 10) -> float:
    """Recall@n of the held-out items that are in the tail: the mean, over users with one, of the share that is listed.

    Lists are those of the whole catalogue; only what is looked for in them is restricted.

    Args:
        ranks: `[targets] float64`, as `Evaluation.ranks`.
        held_out: whose targets they are.
        is_tail: `[num_items + 1] bool`, as `tail_items` gives it.
        n: length of the lists.

    Returns:
        From 0 to 1; 0 where nobody has such an item.
    """
    user = np.repeat(np.arange(len(held_out.users)), np.diff(held_out.target_offsets))
    of_tail = is_tail[held_out.targets]
    wanted = np.bincount(user[of_tail], minlength=len(held_out.users))
    found = np.bincount(user[of_tail & (ranks <= n)], minlength=len(held_out.users))
    has_some = wanted > 0
    return float((found[has_some] / wanted[has_some]).mean()) if has_some.any() else 0.0
