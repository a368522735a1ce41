"""The models that the real server answered for in data/recorded_answers.json, seeded as they were then."""

import keras
import tensorflow as tf

USERS, ITEMS, GENRES = 10, 20, ["a", "b", "c"]
FEATURES = {"user_id": tf.int64, "item_id": tf.int64, "genre": tf.string}


def functional_model():
    """Chance of a click and rating of an item for a user; the order of the layers decides the seeds of the weights."""
    inputs = {name: keras.Input((), dtype=dtype.name, name=name) for name, dtype in FEATURES.items()}
    genre = keras.layers.StringLookup(vocabulary=GENRES)(inputs["genre"])
    parts = [
        keras.layers.Embedding(USERS, 4)(inputs["user_id"]),
        keras.layers.Embedding(ITEMS, 4)(inputs["item_id"]),
        keras.layers.Embedding(len(GENRES) + 1, 2)(genre),
    ]
    joined = keras.layers.Concatenate()(parts)
    ctr = keras.layers.Dense(1, activation="sigmoid", name="ctr")(joined)
    return keras.Model(inputs, {"ctr": ctr, "rating": keras.layers.Dense(1, name="rating")(joined)})


class ManySignatures(tf.Module):
    """The functional model by column, by serialized example, and as a list of five items."""

    def __init__(self, model):
        super().__init__()
        self.model = model
        # Keras' own tracking is not what the loader of C++ follows.
        self.tracked = [variable.value for variable in model.variables]

    def by_example(self, serialized):
        features = {name: tf.io.FixedLenFeature([], dtype) for name, dtype in FEATURES.items()}
        return self.model(tf.io.parse_example(serialized, features), training=False)

    @tf.function(input_signature=[tf.TensorSpec([None], dtype, name) for name, dtype in FEATURES.items()])
    def serve(self, user_id, item_id, genre):
        return self.model({"user_id": user_id, "item_id": item_id, "genre": genre}, training=False)

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, "inputs")])
    def regress(self, inputs):
        return {"outputs": self.by_example(inputs)["rating"]}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, "inputs")])
    def classify(self, inputs):
        yes = self.by_example(inputs)["ctr"]
        classes = tf.repeat([["no", "yes"]], tf.shape(yes)[0], axis=0)
        return {"classes": classes, "scores": tf.concat([1 - yes, yes], axis=1)}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.int64, "user_id")])
    def recommend(self, user_id):
        rows = tf.shape(user_id)[0]
        items = tf.tile(tf.range(ITEMS, dtype=tf.int64), [rows])
        pairs = {"user_id": tf.repeat(user_id, ITEMS), "item_id": items, "genre": tf.fill([rows * ITEMS], "a")}
        scores = tf.reshape(self.model(pairs, training=False)["ctr"], [rows, ITEMS])
        score, item = tf.math.top_k(scores, 5)
        return {"item_id": tf.cast(item, tf.int64), "score": score}


class Scaled(tf.Module):
    """A batch beside a scalar."""

    @tf.function(
        input_signature=[tf.TensorSpec([None, 3], tf.float32, "x"), tf.TensorSpec([], tf.float32, "temperature")]
    )
    def serve(self, x, temperature):
        return {"y": x * temperature}


class InPython(tf.Module):
    """Loads everywhere, runs nowhere but here."""

    @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, "x")])
    def serve(self, x):
        doubled = tf.numpy_function(lambda values: values * 2, [x], tf.float32)
        return {"y": tf.ensure_shape(doubled, [None])}


def write_reference_models(directory):
    """Writes plain/1, multi/1, multi/2, scalar/1 and pyfn/1."""
    keras.utils.set_random_seed(0)
    model = functional_model()
    model.export(f"{directory}/plain/1", format="tf_saved_model", verbose=False)
    module = ManySignatures(model)
    signatures = {
        "serving_default": module.serve,
        "regress": module.regress,
        "classify": module.classify,
        "recommend": module.recommend,
    }
    for version in (1, 2):
        tf.saved_model.save(module, f"{directory}/multi/{version}", signatures=signatures)
    for name, module in (("scalar", Scaled()), ("pyfn", InPython())):
        tf.saved_model.save(module, f"{directory}/{name}/1", signatures=module.serve)
