"""A build as measurement has found it best."""

from __future__ import annotations

from dataclasses import replace

import msgspec

from edgeinfer.engine.build.task import Task
from edgeinfer.engine.store import tuning
from edgeinfer.engine.store.cache import Cache
from edgeinfer.engine.store.key import key_fields

SMALLEST = 4
"""No smaller usual batch is tried: for single pictures there is a profile of their own."""


def with_opt(task: Task, opt: int) -> Task:
    """The same build with another usual batch."""
    low, _, high = task.options.batch
    options = msgspec.structs.replace(task.options, batch=(low, opt, high))
    return replace(task, options=options, fields=key_fields(task.model, options, task.machine, task.fields.calibration))


def tuned(task: Task, cache: Cache) -> Task:
    """The build with the usual batch that was found best here, if one was."""
    choice, (low, _, high) = tuning.recall(cache, task.fields), task.options.batch
    return task if choice is None or not low <= choice.opt <= high else with_opt(task, choice.opt)


def tunable(task: Task) -> bool:
    """Whether the usual batch makes a difference to the engine: not to one of a single shape, or of shapes by name."""
    low, _, high = task.options.batch
    return task.options.dla_core is None and with_opt(task, low).key != with_opt(task, high).key


def candidates(task: Task) -> list[Task]:
    """The builds to try: usual batches from the largest down, each half of the one before; none is there twice."""
    low, _, high = task.options.batch
    opts = sorted({max(low, high >> power) for power in range(high.bit_length())}, reverse=True)
    found = {one.key: one for one in (with_opt(task, opt) for opt in reversed(opts) if opt >= min(SMALLEST, high))}
    return list(reversed(found.values()))
