"""Ranking distillation for recommender systems on TensorFlow and Keras 3.

    import keras, rd_tf

    data = rd_tf.load_dataset("datasets/gowalla").split("validation")
    teacher = rd_tf.models.Caser.for_dataset(data, dim=100)
    rd_tf.RankingDistiller(teacher).fit(data, epochs=50)

    student = rd_tf.models.Caser.for_dataset(data, dim=50)
    distiller = rd_tf.RankingDistiller(student, rd_tf.teacher_lists(teacher, data, k=10))
    distiller.fit(data, epochs=50, callbacks=[rd_tf.callbacks.Validation(every=5)])
    rd_tf.evaluate(student, data).metrics["map"]
    rd_tf.export(student, data, "saved_models/gowalla")

Names are imported when they are first used, so that `import rd_tf` is quick and importing one does not import all.
"""

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from rd_tf import losses as losses
    from rd_tf import models as models
    from rd_tf.data.windows import open_dataset as load_dataset
    from rd_tf.data.windows import synthetic_dataset as synthetic_dataset
    from rd_tf.evaluation.evaluator import evaluate_on as evaluate
    from rd_tf.models.ranker import Histories, SequenceRanker
    from rd_tf.plugins import register_loss, register_ranker
    from rd_tf.serving.export import export_to as export
    from rd_tf.storage import InputError
    from rd_tf.teacher.cache import teacher_lists
    from rd_tf.teacher.lists import read_teacher_lists
    from rd_tf.training import callbacks as callbacks
    from rd_tf.training import optimizers as optimizers
    from rd_tf.training.distiller import RankingDistiller

# Where a public name is: "module:name", or a module alone.
_PLACES = {
    "Histories": "rd_tf.models.ranker:Histories",
    "InputError": "rd_tf.storage:InputError",
    "RankingDistiller": "rd_tf.training.distiller:RankingDistiller",
    "SequenceRanker": "rd_tf.models.ranker:SequenceRanker",
    "callbacks": "rd_tf.training.callbacks",
    # Commands too, as `python -m rd_tf.evaluate`; the modules can be called.
    "evaluate": "rd_tf.evaluate",
    "export": "rd_tf.export",
    "load_dataset": "rd_tf.data.windows:open_dataset",
    "losses": "rd_tf.losses",
    "models": "rd_tf.models",
    "optimizers": "rd_tf.training.optimizers",
    "read_teacher_lists": "rd_tf.teacher.lists:read_teacher_lists",
    "register_loss": "rd_tf.plugins:register_loss",
    "register_ranker": "rd_tf.plugins:register_ranker",
    "synthetic_dataset": "rd_tf.data.windows:synthetic_dataset",
    "teacher_lists": "rd_tf.teacher.cache:teacher_lists",
}
__all__ = [
    "Histories",
    "InputError",
    "RankingDistiller",
    "SequenceRanker",
    "callbacks",
    "evaluate",
    "export",
    "load_dataset",
    "losses",
    "models",
    "optimizers",
    "read_teacher_lists",
    "register_loss",
    "register_ranker",
    "synthetic_dataset",
    "teacher_lists",
]


def import_place(place: str) -> Any:
    """What stands at "module:name", or the module where there is no name."""
    module, _, name = place.partition(":")
    found = importlib.import_module(module)
    return getattr(found, name) if name else found


def lazy_attribute(package: str, places: dict[str, str], name: str) -> Any:
    """What a package's `__getattr__` gives.

    Args:
        package: its `__name__`.
        places: public name -> "module:name", or a module alone.
        name: the attribute.
    """
    if name not in places:
        raise AttributeError(f"module {package!r} has no attribute {name!r}")
    return import_place(places[name])


def __getattr__(name: str) -> Any:
    return lazy_attribute(__name__, _PLACES, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
