"""From an ONNX file to a TensorRT network, and a full account where the parser refuses it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from edgeinfer.engine.errors import BuildError
from edgeinfer.engine.options import Profile
from edgeinfer.engine.toolkit import Toolkit, member
from edgeinfer.guard.limits import MAX_NODES_TOLD
from edgeinfer.models.onnxfile import Node, OnnxModel

WAYS_OUT = (
    "export it with another opset, load a plugin that has the operator (--plugin), or use ONNX Runtime: with its "
    "TensorRT provider, which takes the supported part of a graph, or plain (`--backend onnxruntime`)"
)


MAX_NAME, MAX_REASON = 40, 200


def create_network(toolkit: Toolkit, builder: Any, strongly_typed: bool) -> Any:
    """An empty network: explicit batch, and strong types where asked for and offered."""
    kinds, mask = toolkit.trt.NetworkDefinitionCreationFlag, 0
    for name, wanted in (("EXPLICIT_BATCH", True), ("STRONGLY_TYPED", strongly_typed)):
        flag = member(kinds, name)
        if wanted and flag is not None:
            mask |= 1 << int(flag)
    return builder.create_network(mask)


def parse(toolkit: Toolkit, logger: Any, network: Any, model: OnnxModel, path: Path) -> Any:
    """Fills `network` from the ONNX file `path`, which was made of `model`. Returns the parser, to be kept alive.

    Raises BuildError with every node that TensorRT does not take.
    """
    parser = toolkit.trt.OnnxParser(network, logger)
    if not parser.parse_from_file(str(path)):
        raise BuildError(_account(toolkit, logger, parser, model, path), WAYS_OUT)
    return parser


def fix_shapes(network: Any, profiles: dict[str, Profile]) -> None:
    """Gives inputs with free dimensions their usual shapes for good: a DLA takes no other than it was built for."""
    for tensor in (network.get_input(index) for index in range(network.num_inputs)):
        if tensor.name in profiles:
            tensor.shape = profiles[tensor.name][1]


def _account(toolkit: Toolkit, logger: Any, parser: Any, model: OnnxModel, path: Path) -> str:
    refused = dict(_errors(parser, model.nodes))
    for index in _unsupported(toolkit, logger, parser, path, len(model.nodes)):
        refused.setdefault(index, (model.nodes[index], "not supported"))
    whole = refused.pop(-1, None)
    if whole is not None and not refused:
        return f"{model.path}: {toolkit} can't read the graph: {whole[1]}"
    nodes = [
        f"node {index} {node.name[:MAX_NAME]!r} ({node.operator[:MAX_NAME]}): {reason[:MAX_REASON]}"
        for index, (node, reason) in sorted(refused.items())[:MAX_NODES_TOLD]
    ]
    more = f"; and {len(refused) - len(nodes)} more" if len(refused) > len(nodes) else ""
    return f"{model.path}: {toolkit} can't build {len(refused)} of {len(model.nodes)} nodes: {'; '.join(nodes)}{more}"


def _errors(parser: Any, nodes: tuple[Node, ...]) -> Iterator[tuple[int, tuple[Node, str]]]:
    for number in range(parser.num_errors):
        error = parser.get_error(number)
        index = error.node()
        yield index, (_node(error, nodes), _reason(error))


def _node(error: Any, nodes: tuple[Node, ...]) -> Node:
    """The parser's own name for the node; up to 8.6 the file's, as there it gives only the number."""
    if hasattr(error, "node_name"):
        return Node(error.node_name(), error.node_operator())
    return nodes[error.node()] if 0 <= error.node() < len(nodes) else Node("", "?")


def _reason(error: Any) -> str:
    text, code = error.desc().strip(), str(error.code()).rsplit(".", 1)[-1]
    return code if text in {"", "false"} else text


def _unsupported(toolkit: Toolkit, logger: Any, parser: Any, path: Path, count: int) -> set[int]:
    """Numbers of the nodes that are in no part that the parser could take; empty where it can't tell."""
    name = "supports_model_v2" if hasattr(parser, "supports_model_v2") else "supports_model"
    fresh_network = create_network(toolkit, toolkit.trt.Builder(logger), strongly_typed=False)
    fresh = toolkit.trt.OnnxParser(fresh_network, logger)
    answer = getattr(fresh, name)(path.read_bytes(), str(path))
    parts = _parts(fresh) if name == "supports_model_v2" else [nodes for nodes, _ in answer[1]]
    taken = {index for nodes in parts for index in nodes}
    return set(range(count)) - taken if taken else set()


def _parts(parser: Any) -> list[list[int]]:
    return [parser.get_subgraph_nodes(index) for index in range(parser.num_subgraphs)]
