"""A vLLM engine that streams finished groups, and takes new weights between two decoding steps."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from vllm import EngineArgs, LLMEngine, SamplingParams
from vllm.config import WeightTransferConfig
from vllm.sampling_params import RequestOutputKind

from rollout import weights
from rollout.config import RolloutConfig, SamplingConfig
from rollout.increments import increments
from rollout.step_loop import StepLoop
from rollout.types import Completion, EngineSpec, Group, Logprobs, Prompt, Tokens, WeightBucket


class PromptTooLongError(ValueError):
    """A prompt and its longest completion do not fit the engine's context."""


class UnpublishedError(RuntimeError):
    """Prompts came before the first weights did."""


@dataclass(frozen=True, slots=True)
class Sampled:
    """What a step has of a request: vLLM's CompletionOutputs, and the policy versions that sampled them so far.

    Most requests have it once, when they are finished; those that are streamed have it at every step.
    """

    request_id: str
    outputs: Any
    policy_versions: tuple[int, ...]
    is_finished: bool


class VersionedEngine:
    """vLLM's LLMEngine, which also knows the version of its weights. To be touched by one thread only."""

    def __init__(self, spec: EngineSpec, config: RolloutConfig) -> None:
        weights.register()
        self._engine = LLMEngine.from_engine_args(engine_args(spec, config))
        # A model folder's own weights are version 0; without any there is none until the first publish.
        self.version: int | None = 0 if spec.load_weights else None
        self._versions: dict[str, list[int]] = {}  # request id -> versions that sampled it so far

    def add_request(self, request_id: str, prompt: Any, params: Any) -> None:
        """Raises UnpublishedError when the engine has no weights yet."""
        if self.version is None:
            raise UnpublishedError("no weights were published to this generator yet: publish before generating")
        self._engine.add_request(request_id, prompt, params)
        self._versions[request_id] = [self.version]

    def abort_request(self, request_ids: list[str]) -> None:
        self._engine.abort_request(request_ids)
        for request_id in request_ids:
            self._versions.pop(request_id, None)

    def has_unfinished_requests(self) -> bool:
        return self._engine.has_unfinished_requests()

    def step(self) -> list[Sampled]:
        """Decode one token of every running request; return those that this finished, and what is new of streamed ones."""
        return [self._sampled(output) for output in self._engine.step()]

    def _sampled(self, output: Any) -> Sampled:
        versions = tuple(self._versions[output.request_id])
        if output.finished:
            del self._versions[output.request_id]
        return Sampled(output.request_id, output.outputs, versions, output.finished)

    def start_weight_update(self) -> None:
        self._engine.collective_rpc("start_weight_update")

    def load_bucket(self, bucket: WeightBucket) -> None:
        self._engine.collective_rpc("update_weights", args=({"bucket": bucket},))

    def finish_weight_update(self, version: int) -> None:
        """Take the new weights into use, and forget cached prefixes: they hold keys and values of the old ones."""
        self._engine.collective_rpc("finish_weight_update")
        self._engine.reset_prefix_cache()
        self.version = version
        for versions in self._versions.values():
            versions.append(version)

    def sleep(self) -> None:
        """Level 1: weights wait in host memory. Level 2 corrupts some models."""
        self._engine.sleep(level=1)

    def wake(self) -> None:
        self._engine.wake_up()


class Engine:
    """A generation engine and the loop that steps it. Safe to call from several threads."""

    def __init__(self, spec: EngineSpec, config: RolloutConfig, decode: Callable[[Tokens], str]) -> None:
        """`decode` maps a completion's token ids to its text."""
        self._spec = spec
        self._decode = decode
        self._loop = StepLoop(VersionedEngine(spec, config))

    @property
    def policy_version(self) -> int | None:
        """The version of the weights in use; None before the first publish."""
        return self._loop.call(lambda engine: engine.version)

    def generate(
        self, prompts: Sequence[Prompt], sampling: SamplingConfig, group_size: int, seed: int
    ) -> Iterator[Group]:
        """Yield the unscored group of each prompt as it finishes.

        Raises PromptTooLongError before anything is sampled, UnpublishedError when the engine has no weights yet.
        """
        by_id = {prompt.id: prompt for prompt in prompts}
        if len(by_id) < len(prompts):
            raise ValueError(f"{len(prompts) - len(by_id)} prompts share an id with another of the same call")
        requests = [
            (
                prompt.id,
                {"prompt_token_ids": self._fitting(prompt, sampling).token_ids.tolist()},
                sampling_params(sampling, group_size, prompt_seed(seed, prompt.id)),
            )
            for prompt in prompts
        ]
        for sampled in self._loop.stream(requests):
            yield self._group(by_id[sampled.request_id], sampled)

    def stream(self, prompt: Prompt, sampling: SamplingConfig, seed: int) -> Iterator[str]:
        """Yield the text of one completion in pieces, as it is sampled. Raises as `generate` does."""
        params = sampling_params(sampling, 1, prompt_seed(seed, prompt.id))
        params.output_kind = RequestOutputKind.DELTA
        request = (prompt.id, {"prompt_token_ids": self._fitting(prompt, sampling).token_ids.tolist()}, params)
        return increments((sampled.outputs[0].token_ids for sampled in self._loop.stream([request])), self._decode)

    def update_weights(self, buckets: Sequence[WeightBucket], version: int) -> int:
        """Replace all weights between two decoding steps, and return the version now in use."""

        def update(engine: VersionedEngine) -> int:
            engine.start_weight_update()
            for bucket in buckets:
                engine.load_bucket(bucket)
            engine.finish_weight_update(version)
            return version

        return self._loop.call(update)

    def sleep(self) -> None:
        """Give the GPU memory to the learner."""
        self._loop.call(lambda engine: engine.sleep())

    def wake(self) -> None:
        """Take the GPU memory back."""
        self._loop.call(lambda engine: engine.wake())

    def close(self) -> None:
        """Stop decoding; whoever still waits gets EngineStoppedError."""
        self._loop.close()

    def _fitting(self, prompt: Prompt, sampling: SamplingConfig) -> Prompt:
        needed = len(prompt.token_ids) + sampling.max_completion_tokens
        if needed > self._spec.max_model_len:
            raise PromptTooLongError(
                f"prompt {prompt.id} has {len(prompt.token_ids)} tokens; with sampling.max_completion_tokens = "
                f"{sampling.max_completion_tokens} it needs {needed} and the engine holds "
                f"{self._spec.max_model_len}: raise prompts.max_prompt_tokens or shorten the prompt"
            )
        return prompt

    def _group(self, prompt: Prompt, sampled: Sampled) -> Group:
        outputs = sorted(sampled.outputs, key=lambda output: output.index)
        return Group(prompt, tuple(self._completion(output, sampled.policy_versions) for output in outputs))

    def _completion(self, output: Any, policy_versions: tuple[int, ...]) -> Completion:
        token_ids = np.asarray(output.token_ids, dtype=np.int32)
        return Completion(
            token_ids=token_ids,
            rollout_logprobs=sampled_logprobs(output),
            finish_reason="length" if output.finish_reason == "length" else "stop",
            policy_versions=policy_versions,
            text=self._decode(token_ids),
        )


def engine_args(spec: EngineSpec, config: RolloutConfig) -> EngineArgs:
    """vLLM's arguments for these settings."""
    return EngineArgs(
        model=spec.model_folder,
        dtype=spec.dtype,  # type: ignore[arg-type]
        load_format="auto" if spec.load_weights else "dummy",
        max_model_len=spec.max_model_len,
        max_num_seqs=config.max_concurrent_completions,
        # A prompt read in pieces takes back a random number, which the CPU's generators cannot: seeded requests would end
        # the engine as soon as more prompts wait than one step holds.
        enable_chunked_prefill=has_gpu(),
        max_num_batched_tokens=max(config.max_batched_tokens, spec.max_model_len),
        tensor_parallel_size=config.tensor_parallel_size,
        distributed_executor_backend="uni" if config.tensor_parallel_size == 1 else "mp",
        gpu_memory_utilization=config.gpu_memory_fraction,
        enforce_eager=not config.compile,
        enable_sleep_mode=has_gpu(),
        skip_tokenizer_init=not spec.reads_text,
        # Logprobs of the distribution that was sampled from, after the temperature.
        logprobs_mode="processed_logprobs",
        weight_transfer_config=WeightTransferConfig(backend=weights.BACKEND),
        disable_log_stats=True,
    )


def has_gpu() -> bool:
    """Whether this process sees a CUDA device."""
    import torch

    return torch.cuda.is_available()


def sampling_params(sampling: SamplingConfig, group_size: int, seed: int) -> SamplingParams:
    """vLLM's sampling parameters for one whole group, returned once, when finished."""
    return SamplingParams(
        n=group_size,
        temperature=sampling.temperature,
        max_tokens=sampling.max_completion_tokens,
        seed=seed,
        logprobs=0,  # the sampled token's own, no alternatives
        flat_logprobs=True,
        stop=list(sampling.stop),
        include_stop_str_in_output=True,
        detokenize=bool(sampling.stop),
        output_kind=RequestOutputKind.FINAL_ONLY,
    )


def prompt_seed(seed: int, prompt_id: str) -> int:
    """A seed for one prompt: the same whichever engine samples it, and whatever else is in its batch."""
    digest = hashlib.blake2b(f"{seed}/{prompt_id}".encode(), digest_size=4).digest()
    return int.from_bytes(digest, "big") >> 1  # vLLM adds the completion's index: stay within int32


def sampled_logprobs(output: Any) -> Logprobs:
    """The sampled tokens' logprobs of one of vLLM's CompletionOutputs, shape [T]."""
    flat = output.logprobs
    # At each position the sampled token comes first.
    return np.asarray(flat.logprobs, dtype=np.float32)[np.asarray(flat.start_indices, dtype=np.int64)]
