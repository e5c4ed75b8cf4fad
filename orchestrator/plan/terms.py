"""The parts of a memory plan: what an actor holds, when, and by which formula. docs/memory.md explains every one."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from learner.config import ModelConfig
from orchestrator.cluster.layout import can_share
from orchestrator.config.schema import RunConfig
from orchestrator.plan.model_shapes import ModelShape

GIB = 2**30
CONTEXT = 800 * 2**20
"""CUDA's context, its libraries' kernels and workspaces, of each process."""

Phase = Literal["generating", "backward", "optimizer step"]
LEARNING: tuple[Phase, ...] = ("backward", "optimizer step")
ALWAYS: tuple[Phase, ...] = ("generating", *LEARNING)


@dataclass(frozen=True, slots=True)
class Term:
    """Something that an actor holds on a GPU."""

    actor: Literal["learner", "generator"]
    name: str
    num_bytes: float
    phases: tuple[Phase, ...]
    """When it is there."""
    formula: str


@dataclass(frozen=True, slots=True)
class HostTerm:
    """Something that an actor holds in host memory, all actors of its kind together."""

    actor: str
    name: str
    num_bytes: float
    formula: str


@dataclass(frozen=True, slots=True)
class Sizes:
    """The numbers that the formulas are made of, by the letters they have there."""

    shape: ModelShape
    P: int
    """Parameters, the critic's among them."""
    T: int
    """Those that are trained."""
    largest: int
    """Elements of the largest trained tensor."""
    N: int
    """Ranks of the learner."""
    b: int
    """Bytes of a weight."""

    @classmethod
    def of(cls, config: RunConfig, shape: ModelShape) -> Sizes:
        hidden, model = shape.hidden_size, config.model
        critic = (hidden * hidden + 2 * hidden + 1) if config.learner.algorithm.uses_critic else 0
        if model.lora is None:
            trained, added, largest = shape.num_parameters, 0, shape.largest_tensor
        else:
            adapters = [math.prod(pair) for pair in shape.adapters(model.lora)]
            trained = added = sum(adapters)
            largest = max(adapters)
        parameters = shape.num_parameters + added + critic
        return cls(shape, parameters, trained + critic, largest, config.learner.num_ranks, dtype_bytes(model))


def dtype_bytes(model: ModelConfig) -> int:
    return {"bfloat16": 2, "float32": 4}[model.dtype]


def reference_kind(config: RunConfig) -> Literal["none", "base", "copy", "offloaded"]:
    """What ``learner.algorithm.reference`` comes to."""
    algorithm = config.learner.algorithm
    if algorithm.kl_beta == 0:
        return "none"
    if algorithm.reference == "auto":
        return "base" if config.model.lora is not None else "copy"
    return algorithm.reference


def is_colocated(config: RunConfig) -> bool:
    """Whether generator and learner take turns on a GPU, where there is one."""
    mode = config.placement.mode
    return mode == "colocated" or (mode == "auto" and can_share(config))
