"""How large YAML becomes once its aliases and merges are written out; reckoned before anything is."""

from __future__ import annotations

import yaml

from edgeinfer.guard.limits import MAX_YAML_NODES


def check_size(root: yaml.Node) -> None:
    """Raises yaml.MarkedYAMLError where the whole would be too large, or contains itself.

    Each node is looked at once, however often it is named, so that this takes no longer than reading the file did.
    """
    sizes: dict[int, int] = {}
    open_nodes: set[int] = set()
    waiting: list[tuple[yaml.Node, bool]] = [(root, False)]
    while waiting:
        node, done = waiting.pop()
        if id(node) in sizes:
            continue
        if done:
            open_nodes.discard(id(node))
            sizes[id(node)] = _size(node, sizes)
        elif id(node) in open_nodes:
            raise _refused("a part of it contains itself", node)
        else:
            open_nodes.add(id(node))
            waiting.append((node, True))
            waiting += [(child, False) for child in _children(node)]


def _size(node: yaml.Node, sizes: dict[int, int]) -> int:
    size = 1 + sum(sizes[id(child)] for child in _children(node))
    if size > MAX_YAML_NODES:
        raise _refused(f"with its aliases written out it has more than {MAX_YAML_NODES} values", node)
    return size


def _children(node: yaml.Node) -> list[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        return [part for pair in node.value for part in pair]
    return list(node.value) if isinstance(node, yaml.SequenceNode) else []


def _refused(problem: str, node: yaml.Node) -> yaml.MarkedYAMLError:
    return yaml.constructor.ConstructorError(None, None, problem, node.start_mark)
