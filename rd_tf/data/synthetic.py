"""The built-in world: check-ins with the structure of real ones, from a seed."""

import numpy as np

from rd_tf.data.interactions import Interactions
from rd_tf.data.readers.check_ins import CheckIns
from rd_tf.storage import InputError

_DISTRICT_SIZE = 60
_CATEGORIES = 8
_HABIT = 0.55
_HOME = 0.8
_SUCCESSORS = 5
_TASTE = 0.35
_TAIL = 0.9
_HOUR = 3600


def synthetic_interactions(num_users: int, num_items: int, mean_visits: float, seed: int) -> Interactions:
    """Simulates a city.

    Places lie in districts and belong to categories; their popularity has a long tail (Zipf). A user lives in a
    district and has a taste, a distribution over categories. Each visit follows a habit, one of the few places that
    people go to after the last one (a Markov chain over places), or the user's taste, at home or in the next district.

    Args:
        num_users: number of users.
        num_items: number of places, at most; those that nobody visits are left out.
        mean_visits: mean visits a user, repeats included; every user has at least 8.
        seed: the same seed gives the same world.

    Returns:
        Check-ins with repeats; timestamps in seconds.

    Raises:
        ValueError: a size out of range.
    """
    if num_users < 1 or num_items < 20 or mean_visits < 8:
        raise ValueError(
            "the built-in world needs at least 1 user, 20 items and 8 visits a user; "
            f"received {num_users}, {num_items}, {mean_visits}"
        )
    random = np.random.default_rng(seed)
    num_districts = max(2, num_items // _DISTRICT_SIZE)
    district = np.sort(random.integers(0, num_districts, num_items))
    category = random.integers(0, _CATEGORIES, num_items)
    # Items sorted by (district, category): a cell of places is a slice, and a draw by popularity is one binary search.
    order = np.lexsort((category, district))
    district, category = district[order], category[order]
    popularity = random.permutation(1.0 / np.arange(1, num_items + 1) ** _TAIL)
    bounds = np.concatenate([[0.0], np.cumsum(popularity)])
    cell = district * _CATEGORIES + category
    cell_starts = np.searchsorted(cell, np.arange(num_districts * _CATEGORIES + 1))

    def draw(low: np.ndarray, high: np.ndarray) -> np.ndarray:
        point = bounds[low] + random.random(len(low)) * (bounds[high] - bounds[low])
        return np.clip(np.searchsorted(bounds, point, side="right") - 1, low, np.maximum(high - 1, low))

    district_starts = np.searchsorted(district, np.arange(num_districts + 1))
    repeated = np.repeat(np.arange(num_items), _SUCCESSORS)
    successors = draw(district_starts[district[repeated]], district_starts[district[repeated] + 1])
    successors = successors.reshape(num_items, _SUCCESSORS)

    home = random.integers(0, num_districts, num_users)
    taste = np.cumsum(random.dirichlet(np.full(_CATEGORIES, _TASTE), num_users), axis=1)
    counts = 8 + random.negative_binomial(2, 2 / (2 + max(mean_visits - 8, 1e-6)), num_users)

    def by_taste(users: np.ndarray) -> np.ndarray:
        away = (random.random(len(users)) > _HOME).astype(np.int64)
        where = (home[users] + away) % num_districts
        kind = (random.random(len(users))[:, None] > taste[users]).sum(1).clip(0, _CATEGORIES - 1)
        chosen = where * _CATEGORIES + kind
        low, high = cell_starts[chosen], cell_starts[chosen + 1]
        # A small district may lack the category: then any of its places is drawn, or any place at all if it has none.
        for wider in ((district_starts[where], district_starts[where + 1]), (0, num_items)):
            low, high = np.where(low == high, wider[0], low), np.where(low == high, wider[1], high)
        return draw(low, high)

    current = by_taste(np.arange(num_users))
    visits_users, visits_items, visits_times = [], [], []
    clock = random.integers(0, 24 * _HOUR, num_users)
    for visit in range(int(counts.max())):
        active = np.flatnonzero(counts > visit)
        if visit:
            ranks = np.minimum(random.geometric(0.4, len(active)) - 1, _SUCCESSORS - 1)
            habit = random.random(len(active)) < _HABIT
            current[active] = np.where(habit, successors[current[active], ranks], by_taste(active))
            clock[active] += random.integers(1, 48 * _HOUR, len(active))
        visits_users.append(active)
        visits_items.append(current[active].copy())
        visits_times.append(clock[active].copy())
    users, items, times = (np.concatenate(each) for each in (visits_users, visits_items, visits_times))
    by_user = np.argsort(users, kind="stable")
    used, codes = np.unique(items[by_user], return_inverse=True)
    return Interactions(
        users[by_user].astype(np.int32),
        (codes + 1).astype(np.int32),
        times[by_user].astype(np.int64),
        [f"user-{number}" for number in range(num_users)],
        [f"place-{number}" for number in used],
    )


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
