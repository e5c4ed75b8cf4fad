"""A tiny policy and tiny groups, for the learner's tests."""

from __future__ import annotations

import socket
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForCausalLM

from learner.config import AlgorithmConfig, BuildConfig, LearnerConfig, ModelConfig
from rollout.types.completions import Completion, Group, Reward, Turn
from rollout.types.prompts import Prompt

TAGS = ("</think>", "<answer>", "</answer>")
BUILD = BuildConfig(
    hidden_size=32,
    num_layers=2,
    num_heads=2,
    num_kv_heads=1,
    intermediate_size=48,
    max_integer=99,
    words=(*"+-*=() \n", ", ", " off ", " no\n", " yes\n", "Numbers:", "\nTarget: ", *TAGS),
)
MODEL = ModelConfig(build=BUILD, dtype="float32", attention="sdpa")
TEMPERATURE = 0.8
MAX_COMPLETION_TOKENS = 16
OBSERVED = 60
"""Token ids below are prompts' and the policy's; from here on an environment's."""


def learner_config(algorithm: AlgorithmConfig | None = None, **settings: Any) -> LearnerConfig:
    """Return settings with small microbatches, so that there are several, and an epsilon at which Adam is smooth."""
    defaults = {"learning_rate": 1e-2, "adam_eps": 1e-3, "max_tokens_per_microbatch": 64, "max_logprob_gap": 1e3}
    return LearnerConfig(**(defaults | settings), algorithm=algorithm or AlgorithmConfig())


def free_port() -> int:
    """Return a port that nobody listens on, so that two test runs on one machine do not meet."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def make_groups(folder: Path, seed: int, num_groups: int = 6, group_size: int = 4) -> list[Group]:
    """Return groups of random tokens with the rollout logprobs of the model in ``folder``; one has no spread."""
    rng = np.random.default_rng(seed)
    model = AutoModelForCausalLM.from_pretrained(folder)
    return [_group(model, rng, f"{seed}/{index}", group_size, spread=index != 1) for index in range(num_groups)]


def with_observations(folder: Path, groups: list[Group], seed: int = 0) -> list[Group]:
    """Return the groups with an environment's words within two thirds of their completions, as the model answers them.

    The policy's tokens stay; a token's text is one letter, the policy's `p`, the environment's `e`.
    """
    rng = np.random.default_rng(seed)
    model = AutoModelForCausalLM.from_pretrained(folder)
    return [
        replace(group, completions=tuple(_interrupted(model, rng, group.prompt, c) for c in group.completions))
        for group in groups
    ]


def _interrupted(model: torch.nn.Module, rng: np.random.Generator, prompt: Prompt, whole: Completion) -> Completion:
    cuts = np.unique(rng.integers(0, whole.num_tokens + 1, rng.integers(0, 3)))
    tokens, turns = [], []
    for turn in np.split(whole.token_ids, cuts):
        start = sum(map(len, tokens))
        turns.append(Turn(start, start + len(turn), start, start + len(turn)))
        tokens += [turn, rng.integers(OBSERVED, 90, rng.integers(1, 6))]
    if not len(cuts):
        return whole
    token_ids = np.concatenate(tokens[:-1]).astype(np.int32)
    text = "".join("e" if token >= OBSERVED else "p" for token in token_ids)
    logprobs = sequence_logprobs(model, prompt.token_ids, token_ids).detach().float().numpy()
    return replace(
        whole, token_ids=token_ids, rollout_logprobs=logprobs[token_ids < OBSERVED], turns=tuple(turns), text=text
    )


def _group(model: torch.nn.Module, rng: np.random.Generator, id: str, group_size: int, spread: bool) -> Group:
    prompt = Prompt(
        id, rng.integers(2, 60, rng.integers(1, 9)).astype(np.int32), text="", grader="countdown", answer={}
    )
    completions = []
    for _ in range(group_size):
        tokens = rng.integers(2, 60, rng.integers(1, MAX_COMPLETION_TOKENS + 1)).astype(np.int32)
        logprobs = sequence_logprobs(model, prompt.token_ids, tokens).detach().float().numpy()
        completions.append(Completion(tokens, logprobs, finish_reason="stop", policy_versions=(3,), text=""))
    rewards = rng.normal(size=group_size) if spread else np.ones(group_size)
    return Group(prompt, tuple(completions), tuple(Reward(float(reward), ()) for reward in rewards))


def sequence_logprobs(model: torch.nn.Module, prompt_ids: np.ndarray, completion_ids: np.ndarray) -> torch.Tensor:
    """Compute the logprobs of one completion by the plainest means: one sequence, all logits, ``log_softmax``."""
    token_ids = torch.from_numpy(np.concatenate([prompt_ids, completion_ids])).long()
    logits = model(input_ids=token_ids[None]).logits[0, len(prompt_ids) - 1 : -1] / TEMPERATURE
    return logits.double().log_softmax(-1).gather(1, token_ids[len(prompt_ids) :, None])[:, 0]
