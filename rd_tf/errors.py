"""The one exception a user is meant to read."""


class InputError(ValueError):
    """Something the user gave cannot be used.

    The message is one sentence: what was received, where (file, line, flag) and what to do. Commands print it after
    `error: ` and exit with 1; every other exception is a bug and keeps its traceback.
    """
