"""Imports TensorFlow without its C++ start-up lines."""

import os
import sys


def import_quietly() -> None:
    """Imports TensorFlow and finds its devices while file descriptor 2 points nowhere.

    Lines about oneDNN and a missing GPU driver are written before TF_CPP_MIN_LOG_LEVEL is looked at, so the variable
    alone does not silence them. Python exceptions are not lost: whoever catches them prints them later.
    """
    if "tensorflow" in sys.modules:
        return
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        import tensorflow as tf

        tf.config.list_physical_devices()
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)
