"""The diagnosis as one JSON object, for programs."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from edgeinfer.environment.diagnosis import Diagnosis, Problem
from edgeinfer.environment.facts import Environment, Fact, Reading

FIRST = (
    "jetpack",
    "l4t",
    "cuda",
    "tensorrt",
    "board",
    "soc",
    "gpu",
    "compute_capability",
    "driver",
    "python",
)


def as_object(env: Environment, problems: list[Problem], verdict: Diagnosis) -> dict[str, Any]:
    """A key per fact, each {"value", "source"}, null where unknown; then the diagnosis.

    `tensorrt` is the TensorRT that would be used and `tensorrt_flavour` says which one it is.
    """
    facts = shown(env)
    return {
        **{name: {"value": fact.value, "source": fact.source} for name, fact in facts.items()},
        "live": env.live,
        "disagreements": {name: _sides(fact) for name, fact in facts.items() if fact.disagreements},
        "problems": [asdict(problem) for problem in problems],
        "verdict": asdict(verdict),
    }


def shown(env: Environment) -> dict[str, Fact[Any]]:
    """Every fact by name, in the order in which people look for them."""
    facts: dict[str, Fact[Any]] = env.facts()
    facts["tensorrt"] = env.tensorrt_in_use
    facts["tensorrt_flavour"] = _flavour(env)
    return {name: facts[name] for name in dict.fromkeys((*FIRST, *facts))}


def _flavour(env: Environment) -> Fact[str]:
    if env.flavour is None:
        return Fact()
    module = env.tensorrt_module if env.flavour == "tensorrt" else env.tensorrt_rtx_module
    return Fact((Reading(env.flavour, str(module.source or env.tensorrt_in_use.source)),))


def _sides(fact: Fact[Any]) -> list[dict[str, Any]]:
    return [{"value": other.value, "source": other.source} for other in fact.disagreements]
