"""The messages of onnx.proto on the way from a model to its tensors, by field number.

A field's value is the message that it holds, or "" for what can hold no tensor: numbers, texts, types.
"""

from __future__ import annotations

MODEL, GRAPH, NODE, TENSOR, ENTRY = "ModelProto", "GraphProto", "NodeProto", "TensorProto", "StringStringEntryProto"
FUNCTION, ATTRIBUTE, SPARSE, TRAINING = "FunctionProto", "AttributeProto", "SparseTensorProto", "TrainingInfoProto"


def _message(*others: int, **held: int) -> dict[int, str]:
    """Fields without a tensor, then those with one, as MESSAGE=number; FIELD__MESSAGE where several hold the same."""
    found = dict.fromkeys(others, "")
    found.update({number: name.rpartition("__")[2] for name, number in held.items()})
    return found


FIELDS: dict[str, dict[int, str]] = {
    MODEL: _message(*(1, 2, 3, 4, 5, 6, 8, 14, 26), GraphProto=7, TrainingInfoProto=20, FunctionProto=25),
    TRAINING: _message(3, 4, initialization__GraphProto=1, algorithm__GraphProto=2),
    FUNCTION: _message(1, 2, 3, 4, 5, 6, 8, 9, 10, 12, 13, 14, NodeProto=7, AttributeProto=11),
    GRAPH: _message(2, 10, 11, 12, 13, 14, 16, NodeProto=1, TensorProto=5, SparseTensorProto=15),
    NODE: _message(1, 2, 3, 4, 6, 7, 8, 9, 10, AttributeProto=5),
    ATTRIBUTE: _message(
        *(1, 2, 3, 4, 7, 8, 9, 13, 14, 15, 20, 21),
        t__TensorProto=5,
        g__GraphProto=6,
        tensors__TensorProto=10,
        graphs__GraphProto=11,
        sparse_tensor__SparseTensorProto=22,
        sparse_tensors__SparseTensorProto=23,
    ),
    SPARSE: _message(3, values__TensorProto=1, indices__TensorProto=2),
    TENSOR: _message(1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 14, 16, StringStringEntryProto=13),
    ENTRY: _message(1, 2),
}

SINGLE = {
    (MODEL, 7),
    (TRAINING, 1),
    (TRAINING, 2),
    (ATTRIBUTE, 5),
    (ATTRIBUTE, 6),
    (ATTRIBUTE, 22),
    (SPARSE, 1),
    (SPARSE, 2),
    (ENTRY, 1),
    (ENTRY, 2),
    (TENSOR, 14),
    (NODE, 4),
}
"""Fields that a message has once. Of two, one reader takes the last, another one the first, a third joins them."""
