"""What one worker holds while it trains, for the rankers and samples of users that are there to choose from."""

import dataclasses

from benchmarks.scale_model_rankers import Ranker, caser, fossil
from benchmarks.scale_model_stages import Plan
from benchmarks.scale_model_world import World

# Share of the users that is trained on where the others are served as unknown.
_SAMPLE = 10


@dataclasses.dataclass(frozen=True)
class Choice:
    """A way to train.

    Attributes:
        name: of it.
        model: bytes of weights.
        optimizer: bytes of its slots.
        data: bytes of the dataset and all that is made of it.
    """

    name: str
    model: float
    optimizer: float
    data: float

    @property
    def total(self) -> float:
        return self.model + self.optimizer + self.data


def make_choices(plan: Plan) -> list[Choice]:
    """Rankers of the plan's dimensions on all users, and on a tenth of them."""
    sample = dataclasses.replace(plan.world, users=max(1, plan.world.users // _SAMPLE))
    found = []
    for world, where in ((plan.world, ""), (sample, ", a tenth of the users")):
        for make in (caser, fossil):
            for dim in (plan.teacher_dim, plan.student_dim):
                ranker = make(world.users, world.items, dim, world.sequence_length)
                found.append(_choice(ranker, world, where))
    return found


def _choice(ranker: Ranker, world: World, where: str) -> Choice:
    data = world.training_bytes(with_teacher=True)
    return Choice(ranker.name + where, ranker.weight_bytes, ranker.slot_bytes, data)
