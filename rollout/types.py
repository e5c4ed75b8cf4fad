"""The nouns of Rayzero. Read this file first; it depends on nothing but numpy.

Shape legend, used everywhere: ``P`` prompts, ``G`` completions of a group, ``T`` tokens.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

Tokens = NDArray[np.int32]
"""Token ids, shape ``[T]``."""
Logprobs = NDArray[np.float32]
"""Natural-log probabilities of the tokens that were sampled, shape ``[T]``, in nats."""

FinishReason = Literal["stop", "length"]
PartStatus = Literal["ok", "timeout", "error"]
PromptFormat = Literal["zero_shot", "one_shot", "natural"]
"""How a question is worded: alone, after a worked example, or without asking for tags around the answer."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """A rendered question as token ids, and the data that verifies an answer to it."""

    id: str
    """Unique in a run, the same after a resume: ``train/000123`` or ``held_out/000017``."""
    token_ids: Tokens
    text: str
    task: str
    """Name of the task, which is also the name of the module in ``rewards`` that marks it."""
    answer: Mapping[str, Any]
    """What the task's reward needs; for Countdown ``{"numbers": [3, 7, 9], "target": 33}``."""
    assistant_prefix: str = ""
    """How the assistant's turn already begins. Rewards see it before the completion, markers do not."""
    format: PromptFormat = "zero_shot"
    source: str = ""
    """Which of ``prompts.mixture`` asked it; the task's name where there is no mixture."""
    key: str = ""
    """What makes two problems of one source the same, in whatever words."""
    difficulty: str = ""
    """A label that evaluations group by, such as ``3 numbers``; empty where a task knows none."""


@dataclass(frozen=True, slots=True)
class Completion:
    """Tokens sampled for one prompt."""

    token_ids: Tokens
    rollout_logprobs: Logprobs
    """Log-probabilities under the sampling distribution (temperature applied), when sampled."""
    finish_reason: FinishReason
    policy_versions: tuple[int, ...]
    """The policy versions that sampled the tokens, oldest first; one unless weights changed midway.
    Those of a group are recorded together: with both are also completions that had ended by then, or not begun."""
    text: str

    def __post_init__(self) -> None:
        if len(self.token_ids) != len(self.rollout_logprobs):
            raise ValueError(
                f"a completion of {len(self.token_ids)} tokens carries {len(self.rollout_logprobs)} logprobs"
            )

    @property
    def num_tokens(self) -> int:
        return len(self.token_ids)

    @property
    def is_truncated(self) -> bool:
        return self.finish_reason == "length"


@dataclass(frozen=True, slots=True)
class RewardPart:
    """One named component of a reward. A part that is not ``ok`` has the value 0; an ensemble what its other parts make."""

    name: str
    value: float
    status: PartStatus = "ok"


@dataclass(frozen=True, slots=True)
class Reward:
    """The scalar that is trained on, and the parts that it was made of."""

    total: float
    parts: tuple[RewardPart, ...]

    def part(self, name: str) -> RewardPart:
        """The part of that name. Raises KeyError when the reward has none."""
        for part in self.parts:
            if part.name == name:
                return part
        raise KeyError(f"no reward part {name!r}; this reward has {[part.name for part in self.parts]}")

    @property
    def status(self) -> PartStatus:
        """``ok``, or the first status of a part that is not."""
        return next((part.status for part in self.parts if part.status != "ok"), "ok")


@dataclass(frozen=True, slots=True)
class Group:
    """The completions of one prompt, and their rewards once they are scored."""

    prompt: Prompt
    completions: tuple[Completion, ...]
    rewards: tuple[Reward, ...] = ()

    def scored(self, rewards: tuple[Reward, ...]) -> Group:
        """This group with ``rewards``, one for each completion. Raises ValueError on another count."""
        if len(rewards) != len(self.completions):
            raise ValueError(f"group {self.prompt.id}: {len(self.completions)} completions, {len(rewards)} rewards")
        return replace(self, rewards=rewards)

    @property
    def totals(self) -> NDArray[np.float64]:
        """Total rewards, shape ``[G]``."""
        return np.array([reward.total for reward in self.rewards], dtype=np.float64)

    @property
    def has_spread(self) -> bool:
        """Whether rewards differ; a group without spread teaches nothing to those that compare its completions."""
        return bool(np.ptp(self.totals) > 0)

    @property
    def pass_rate(self) -> float | None:
        """Share of right completions; None where the reward has no part ``correctness``."""
        if not any(part.name == "correctness" for part in self.rewards[0].parts):
            return None
        return sum(reward.part("correctness").value == 1.0 for reward in self.rewards) / len(self.rewards)

    @property
    def num_completion_tokens(self) -> int:
        return sum(completion.num_tokens for completion in self.completions)


@dataclass(frozen=True, slots=True)
class SupervisedExample:
    """A prompt and the completion that the warm start teaches, as token ids."""

    prompt_ids: Tokens
    completion_ids: Tokens


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a version of the weights consists of, in the order in which it is sent."""

    names: tuple[str, ...]
    """As in the Hugging Face checkpoint. A tied LM head is the embedding, and comes once."""
    dtypes: tuple[str, ...]
    """The torch dtype of each, such as ``bfloat16``."""
    shapes: tuple[tuple[int, ...], ...]


@dataclass(frozen=True, slots=True)
class WeightBucket:
    """Some parameters of the policy, on their way from the learner to the generators through host memory."""

    names: tuple[str, ...]
    """As in a manifest, and so are the dtypes."""
    dtypes: tuple[str, ...]
    arrays: tuple[NDArray[Any], ...]
    """numpy has no bfloat16: its bits travel as uint16."""
    checksum: int
    """Of the arrays as they were sent."""

    @classmethod
    def of(cls, names: tuple[str, ...], dtypes: tuple[str, ...], arrays: tuple[NDArray[Any], ...]) -> WeightBucket:
        """With its checksum."""
        return cls(names, dtypes, arrays, checksum(arrays))

    @property
    def is_intact(self) -> bool:
        """Whether the arrays are those that were sent."""
        return checksum(self.arrays) == self.checksum


def checksum(arrays: Iterable[NDArray[Any]]) -> int:
    """A 64-bit sum over the bytes of ``arrays``, at the speed of memory."""
    total = 0
    for array in arrays:
        octets = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        whole = octets.size // 8 * 8
        words = int(octets[:whole].view(np.uint64).sum()) + int(octets[whole:].sum())
        total = (31 * total + words) % 2**64  # so that the order counts
    return total


@dataclass(frozen=True, slots=True)
class IpcBucket:
    """Some parameters of the policy, packed into a buffer on a GPU that other processes can open."""

    names: tuple[str, ...]
    """As in a manifest, and so are dtypes and shapes."""
    dtypes: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]
    num_bytes: tuple[int, ...]
    """Of each in the buffer, one after the other."""
    handles: Mapping[str, tuple[Any, ...]]
    """CUDA IPC handle of the buffer on each GPU, by the GPU's UUID."""


@dataclass(frozen=True, slots=True)
class TransferGroup:
    """Where learner rank 0 (NCCL rank 0) and the workers of all generators meet to broadcast weights."""

    address: str
    port: int
    world_size: int
    """1 plus the sum of the generators' tensor_parallel_size."""
    buffer_bytes: int
    """Of each of the NUM_BUFFERS on both ends."""

    NUM_BUFFERS: ClassVar[int] = 2


@dataclass(frozen=True, slots=True)
class EngineSpec:
    """What a generation engine is built from, besides its settings."""

    model_folder: str
    dtype: str
    max_model_len: int
    """Longest prompt plus longest completion, in tokens."""
    load_weights: bool
    """False when the first weights will be published: the folder then only needs its config."""
    reads_text: bool = False
    """Whether the engine looks at text while it samples, which texts that stop a completion need."""


@dataclass(frozen=True, slots=True)
class Pulse:
    """A sign of life of a generator, answered beside its decoding.

    No pulse: the process hangs. Two pulses with unfinished requests (or waiting calls) and equal `decoding_steps`: the
    engine hangs. Otherwise it works, be it slowly.
    """

    pid: int
    policy_version: int | None
    """As in use at this moment; None while there are no whole weights."""
    num_unfinished: int
    """Requests that the engine has and did not finish."""
    num_waiting_calls: int
    """Calls that wait for the next pause between two decoding steps."""
    decoding_steps: int
    """Done since the engine started."""
