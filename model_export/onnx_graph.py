"""A torch module as the bytes of an ONNX graph: the dynamo exporter, quiet, and without the paths of this machine."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from features.graph import OPSET

if TYPE_CHECKING:
    from onnx import GraphProto
    from torch import Tensor, nn


def graph_bytes(
    module: nn.Module,
    example: tuple[Tensor, ...],
    inputs: Sequence[str],
    outputs: Sequence[str],
    dynamic_shapes: Sequence[Mapping[int, Any] | Sequence[Mapping[int, Any]]],
) -> bytes:
    """Return the ONNX graph of `module` in inference mode, opset features.graph.OPSET.

    Args:
        module: set to eval() by the caller.
        example: arguments of one call; dimensions that are not dynamic are taken from them.
        inputs: names of the arguments.
        outputs: names of the results.
        dynamic_shapes: per argument, torch.export.Dim by dimension; for *arguments, a sequence of these.
    """
    import torch

    with _quiet():
        program = torch.onnx.export(
            module,
            example,
            dynamo=True,
            opset_version=OPSET,
            verbose=False,
            input_names=list(inputs),
            output_names=list(outputs),
            dynamic_shapes=tuple(dynamic_shapes),
        )
    assert program is not None
    graph = program.model_proto
    _forget_sources(graph.graph)
    return bytes(graph.SerializeToString(deterministic=True))


def _forget_sources(graph: GraphProto) -> None:
    """Drop what says where in the sources a node comes from, in branches too."""
    for node in graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
        for attribute in node.attribute:
            if attribute.HasField("g"):
                _forget_sources(attribute.g)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter's notes on its own internals from the terminal."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
