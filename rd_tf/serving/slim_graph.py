"""Leaves out of a saved graph what no loader reads."""

import os
from pathlib import Path

from tensorflow.core.protobuf import config_pb2, saved_model_pb2

from rd_tf.serving.function_names import number_functions

# Shapes that the graph's functions infer again.
_INFERRED = "_output_shapes"
# How the process that exported was configured.
_CONFIG = "config_proto"
_OF_THE_MACHINE = ("device_count", "intra_op_parallelism_threads", "inter_op_parallelism_threads")


def slim_graph(directory: str | os.PathLike[str]) -> None:
    """Rewrites `saved_model.pb` with a fifth fewer bytes; of a small model the graph is a good part.

    Nor does it tell any more what the process had made before or how many threads it had: equal exports are equal
    bytes.

    Args:
        directory: the SavedModel.
    """
    path = Path(directory) / "saved_model.pb"
    saved = saved_model_pb2.SavedModel.FromString(path.read_bytes())
    for graph in saved.meta_graphs:
        # Definitions of TensorFlow's own ops, for readers that lack one; those could not run it either.
        graph.meta_info_def.ClearField("stripped_op_list")
        nodes = [*graph.graph_def.node]
        for function in graph.graph_def.library.function:
            nodes += function.node_def
            for argument in function.arg_attr.values():
                argument.attr.pop(_INFERRED, None)
        for node in nodes:
            node.ClearField("experimental_debug_info")
            node.attr.pop(_INFERRED, None)
            if _CONFIG in node.attr:
                config = config_pb2.ConfigProto.FromString(node.attr[_CONFIG].s)
                for name in _OF_THE_MACHINE:
                    config.ClearField(name)
                node.attr[_CONFIG].s = config.SerializeToString(deterministic=True)
        number_functions(graph)
    path.write_bytes(saved.SerializeToString(deterministic=True))
    # It names the graph as it was.
    (Path(directory) / "fingerprint.pb").unlink(missing_ok=True)
