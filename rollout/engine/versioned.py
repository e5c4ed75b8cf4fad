"""vLLM's engine, and the version of the weights that it runs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from vllm import EngineArgs, LLMEngine
from vllm.config import WeightTransferConfig
from vllm.inputs import TokensPrompt

from rollout.config import RolloutConfig
from rollout.types.publishing import NcclGroup
from rollout.types.sampling import EngineSpec
from rollout.weights import object_store
from rollout.weights.staging import UnpublishedError

CPU_BLOCK_SIZE = 32
"""Tokens of a block of the KV cache on the CPU: the smallest that vLLM's attention takes there."""


@dataclass(frozen=True, slots=True)
class SampledRequest:
    """The state of a request after a step: vLLM's CompletionOutputs, and the policy versions that sampled them so far.

    Most requests are returned once, when they are finished; those that are streamed, at every step.
    """

    request_id: str
    outputs: Any
    policy_versions: tuple[int, ...]
    is_finished: bool


class VersionedEngine:
    """vLLM's LLMEngine, which also knows the version of its weights. To be touched by one thread only.

    `version` is None while there is no whole version: before the first publish, during an update, and after one that
    failed half way.
    """

    def __init__(self, spec: EngineSpec, config: RolloutConfig) -> None:
        self._engine = LLMEngine.from_engine_args(engine_args(spec, config))
        if spec.transport == "ipc":
            self._engine.collective_rpc("init_weight_transfer_engine", args=({"packed": True},))
        # A model folder's own weights are version 0; without any there is none until the first publish.
        self.version: int | None = 0 if spec.load_weights else None
        self.is_updating = False
        self._versions: dict[str, list[int]] = {}  # request id -> versions that sampled it so far

    def add_request(self, request_id: str, prompt: TokensPrompt, params: Any) -> None:
        """Add a request to those that are decoded. Raises UnpublishedError when the engine has no whole weights.

        The version is part of the cache's key: a prefix that other weights read holds their keys and values.
        """
        if self.version is None:
            raise UnpublishedError("no whole weights were published to this generator yet: publish before generating")
        salted = TokensPrompt(prompt_token_ids=prompt["prompt_token_ids"], cache_salt=str(self.version))
        self._engine.add_request(request_id, salted, params)
        self._versions[request_id] = [self.version]

    def abort_request(self, request_ids: list[str]) -> None:
        self._engine.abort_request(request_ids)
        for request_id in request_ids:
            self._versions.pop(request_id, None)

    def has_unfinished_requests(self) -> bool:
        """Return whether there is something to decode; there is not while weights are being replaced."""
        return not self.is_updating and self._engine.has_unfinished_requests()

    def step(self) -> list[SampledRequest]:
        """Decode one token of every running request. Return those that are finished, and those that are streamed."""
        return [self._sampled(output) for output in self._engine.step()]

    def _sampled(self, output: Any) -> SampledRequest:
        versions = tuple(self._versions[output.request_id])
        if output.finished:
            del self._versions[output.request_id]
        return SampledRequest(output.request_id, output.outputs, versions, output.finished)

    def replace_weights(self, update_infos: Iterable[dict[str, Any]], version: int) -> int:
        """Load all of `update_infos`, which vLLM's weight-transfer engine understands, and run `version`."""
        self.begin_update()
        for info in update_infos:
            self.load(info)
        return self.finish_update(version)

    def begin_update(self) -> None:
        """Begin an update: weights are a mixture until `finish_update`. Wake a sleeping engine as far as needed."""
        self.version, self.is_updating = None, True
        self._wait_for_batches()
        if self._engine.is_sleeping():
            self._engine.wake_up(["weights"])
        self._engine.collective_rpc("start_weight_update")

    def load(self, update_info: dict[str, Any]) -> None:
        self._engine.collective_rpc("update_weights", args=(update_info,))

    def finish_update(self, version: int) -> int:
        """Take the new weights into use, and free the prefixes that the old ones cached where no request holds them."""
        self._engine.collective_rpc("finish_weight_update")
        self._engine.reset_prefix_cache()
        self.version, self.is_updating = version, False
        for versions in self._versions.values():
            if versions[-1] != version:
                versions.append(version)
        return version

    def drop_update(self) -> None:
        """Give up an update that began. Abort what is in flight: nothing is sampled from a mixture."""
        self.abort_request(list(self._versions))
        self.is_updating = False
        self._wait_for_batches()
        self._engine.collective_rpc("drop_weight_update")

    def join(self, group: NcclGroup | None, rank: int) -> None:
        """Leave the former group, if there is one, and join `group`, this engine's first worker as `rank`."""
        self._engine.collective_rpc("shutdown_weight_transfer_engine")
        if group is not None:
            self._engine.collective_rpc("init_weight_transfer_engine", args=(nccl_init_info(group, rank),))

    def sleep(self) -> None:
        """Sleep at level 1: weights wait in host memory. Level 2 corrupts some models."""
        self._wait_for_batches()
        self._engine.sleep(level=1)

    def wake(self) -> None:
        self._engine.wake_up()

    def _wait_for_batches(self) -> None:
        """Wait until no batch reads the weights: on a GPU vLLM has the next one running when `step` returns."""
        self._engine.collective_rpc("synchronize_device")


def nccl_init_info(group: NcclGroup, rank: int) -> dict[str, Any]:
    """Return the init info of vLLM's nccl engine, for workers that join `group` from `rank` on."""
    return {
        "master_address": group.address,
        "master_port": group.port,
        "rank_offset": rank,
        "world_size": group.world_size,
        "packed": True,
        "packed_buffer_size_bytes": group.buffer_bytes,
        "packed_num_buffers": group.NUM_BUFFERS,
    }


def engine_args(spec: EngineSpec, config: RolloutConfig) -> EngineArgs:
    """Return vLLM's arguments for these settings."""
    return EngineArgs(
        model=spec.model_folder,
        dtype=spec.dtype,  # type: ignore[arg-type]
        load_format="auto" if spec.load_weights else "dummy",
        max_model_len=spec.max_model_len,
        max_num_seqs=config.max_concurrent_completions,
        # A prompt read in pieces takes back a random number, which the CPU's generators cannot: seeded requests would
        # end the engine as soon as more prompts wait than one step holds.
        enable_chunked_prefill=has_gpu(),
        # Only whole blocks of a prompt are shared by its completions; the CPU's default is 128 tokens.
        block_size=None if has_gpu() else CPU_BLOCK_SIZE,
        max_num_batched_tokens=max(config.max_batched_tokens, spec.max_model_len),
        tensor_parallel_size=config.tensor_parallel_size,
        distributed_executor_backend="uni" if config.tensor_parallel_size == 1 else "mp",
        gpu_memory_utilization=spec.gpu_memory_fraction,
        enforce_eager=not config.compile,
        enable_sleep_mode=has_gpu(),
        skip_tokenizer_init=not spec.reads_text,
        # Logprobs of the distribution that was sampled from, after the temperature.
        logprobs_mode="processed_logprobs",
        weight_transfer_config=WeightTransferConfig(backend=object_store.ENGINES[spec.transport]),
        worker_extension_cls="rollout.weights.object_store.WorkerExtension",
        disable_log_stats=True,
    )


def has_gpu() -> bool:
    """Return whether this process sees a CUDA device."""
    import torch

    return torch.cuda.is_available()
