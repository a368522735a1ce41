"""Names of a saved graph's functions and of their inputs that do not tell what the process has traced before."""

import itertools
import re

from tensorflow.core.framework import attr_value_pb2, function_pb2
from tensorflow.core.protobuf import meta_graph_pb2

# TensorFlow ends the name of a function with a number that it counts up in the process. There is one too in the names
# of what a function takes from outside, by whose order the loaders go.
_COUNTED = re.compile(r"(.*_)(\d+)")
_GIVEN_NAME = "_user_specified_name"


def number_functions(graph: meta_graph_pb2.MetaGraphDef) -> None:
    """Numbers a graph's functions from 0, in the order in which they were traced, and puts them in that order.

    Args:
        graph: it is changed.
    """
    library = graph.graph_def.library
    matches = filter(None, (_COUNTED.fullmatch(function.signature.name) for function in library.function))
    traced = sorted(matches, key=lambda match: int(match[2]))
    names = {match[0]: f"{match[1]}{number}" for number, match in enumerate(traced)}
    nodes = [*graph.graph_def.node]
    for function in library.function:
        function.signature.name = names.get(function.signature.name, function.signature.name)
        _number_inputs(function)
        nodes += function.node_def
    for node in nodes:
        node.op = names.get(node.op, node.op)
        for attribute in node.attr.values():
            _rename_in_attribute(attribute, names)
    for gradient in itertools.chain(library.gradient, library.registered_gradients):
        gradient.gradient_func = names.get(gradient.gradient_func, gradient.gradient_func)
    for gradient in library.gradient:
        gradient.function_name = names.get(gradient.function_name, gradient.function_name)
    places = {name: place for place, name in enumerate(names.values())}
    library.function.sort(key=lambda function: (places.get(function.signature.name, -1), function.signature.name))
    _rename_objects(graph, names)


def _number_inputs(function: function_pb2.FunctionDef) -> None:
    names = {}
    for place, argument in enumerate(function.signature.input_arg):
        if re.search(r"\d", argument.name):
            names[argument.name] = argument.name = f"input_{place}"
        attributes = function.arg_attr[place].attr if place in function.arg_attr else {}
        if _GIVEN_NAME in attributes and attributes[_GIVEN_NAME].s.isdigit():
            del attributes[_GIVEN_NAME]
    for node in function.node_def:
        node.input[:] = [names.get(name, name) for name in node.input]
    for result, name in list(function.ret.items()):
        function.ret[result] = names.get(name, name)


def _rename_in_attribute(attribute: attr_value_pb2.AttrValue, names: dict[str, str]) -> None:
    for called in (attribute.func, *attribute.list.func):
        # Not in passing: setting a part of it makes an attribute of another kind a function.
        if called.name in names:
            called.name = names[called.name]


def _rename_objects(graph: meta_graph_pb2.MetaGraphDef, names: dict[str, str]) -> None:
    objects, aliases = graph.object_graph_def, graph.meta_info_def.function_aliases
    for node in objects.nodes:
        if node.function.concrete_functions:
            node.function.concrete_functions[:] = [names.get(name, name) for name in node.function.concrete_functions]
        if node.bare_concrete_function.concrete_function_name in names:
            name = names[node.bare_concrete_function.concrete_function_name]
            node.bare_concrete_function.concrete_function_name = name
    # All out, all in: a new name may be the old one of another function.
    copies = [
        (name, type(saved).FromString(saved.SerializeToString())) for name, saved in objects.concrete_functions.items()
    ]
    objects.concrete_functions.clear()
    for name, saved in copies:
        objects.concrete_functions[names.get(name, name)].CopyFrom(saved)
    renamed = {names.get(name, name): alias for name, alias in aliases.items()}
    aliases.clear()
    aliases.update(renamed)
