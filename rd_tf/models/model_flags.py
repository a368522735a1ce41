"""Which flags are arguments of which ranker."""

# Beside sequence_length, dim and seed, which every ranker has.
MODEL_FLAGS = {
    "caser": ("vertical_filters", "horizontal_filters", "conv_activation", "dense_activation", "dropout"),
    "fossil": ("history", "history_exponent", "dropout"),
}


def flags_of_others(model: str) -> set[str]:
    """Names of the flags that make no difference to a ranker, since they are arguments of others."""
    every = {name for names in MODEL_FLAGS.values() for name in names}
    return every - set(MODEL_FLAGS.get(model, ()))
