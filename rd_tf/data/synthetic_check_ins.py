"""The built-in world as check-ins to prepare."""

from rd_tf.data.readers.check_ins import CheckIns
from rd_tf.data.synthetic import synthetic_interactions
from rd_tf.errors import InputError


def synthetic_check_ins(synthetic_users: int, synthetic_items: int, synthetic_visits: float, seed: int) -> CheckIns:
    """Simulates `synthetic_interactions`, as if read from a file.

    Raises:
        InputError: a size out of range.
    """
    try:
        world = synthetic_interactions(
            num_users=synthetic_users, num_items=synthetic_items, mean_visits=synthetic_visits, seed=seed
        )
    except ValueError as error:
        raise InputError(f"--format=synthetic: {error}") from None
    return CheckIns(
        users=world.users,
        items=world.items - 1,
        timestamps=world.timestamps,
        user_ids=world.user_ids,
        item_ids=world.item_ids,
        time_unit="as the built-in world counts",
        rows_read=len(world),
        skipped={},
        first_skipped="",
    )
