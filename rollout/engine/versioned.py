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
    """The state of a request after a step: vLLM's CompletionOutputs.

    Most requests are returned once, when they are finished; those that are streamed, at every step.
    """

    request_id: str
    outputs: Any
    is_finished: bool


class VersionedEngine:
    """vLLM's LLMEngine, which also knows the version of its weights. Use it from one thread only.

    `version` is None while there is no whole version: before the first publish, during an update, and after one that
    failed half way.
    """

    def __init__(self, spec: EngineSpec, config: RolloutConfig) -> None:
        self._engine = LLMEngine.from_engine_args(engine_args(spec, config))
        if spec.transport == "ipc":
            self._engine.collective_rpc("init_weight_transfer_engine", args=({"packed": True},))
        self.version: int | None = None
        self.is_updating = False
        self._unfinished: set[str] = set()  # request ids
        self._early: list[SampledRequest] = []  # sampled before an update, for the next step to return
        if spec.load_weights:
            # A model folder's own weights are version 0; without any there is none until the first publish.
            self._run_version(0)

    def add_request(self, request_id: str, prompt: TokensPrompt, params: Any) -> None:
        """Add a request to those that are decoded. Raises UnpublishedError when the engine has no whole weights.

        The version is part of the cache's key: a prefix that other weights read holds their keys and values.
        """
        if self.version is None:
            raise UnpublishedError("no whole weights were published to this generator yet: publish before generating")
        salted = TokensPrompt(prompt_token_ids=prompt["prompt_token_ids"], cache_salt=str(self.version))
        self._engine.add_request(request_id, salted, params)
        self._unfinished.add(request_id)

    def abort_request(self, request_ids: list[str]) -> None:
        self._engine.abort_request(request_ids)
        self._unfinished.difference_update(request_ids)
        self._early = [sampled for sampled in self._early if sampled.request_id not in request_ids]

    def has_unfinished_requests(self) -> bool:
        """Return whether there is something to decode; False while weights are being replaced."""
        return not self.is_updating and bool(self._early or self._engine.has_unfinished_requests())

    def step(self) -> list[SampledRequest]:
        """Decode one token of every running request. Return those that are finished, and those that are streamed."""
        early, self._early = self._early, []
        return [*early, *(self._step() if self._engine.has_unfinished_requests() else ())]

    def _step(self) -> list[SampledRequest]:
        sampled = [SampledRequest(output.request_id, output.outputs, output.finished) for output in self._engine.step()]
        self._unfinished.difference_update(each.request_id for each in sampled if each.is_finished)
        return sampled

    def replace_weights(self, update_infos: Iterable[dict[str, Any]], version: int) -> int:
        """Load all of `update_infos`, which vLLM's weight-transfer engine understands, and run `version`."""
        self.begin_update()
        for info in update_infos:
            self.load(info)
        return self.finish_update(version)

    def begin_update(self) -> None:
        """Start an update: weights are a mixture until `finish_update`. Wake a sleeping engine as far as needed."""
        self.version, self.is_updating = None, True
        if self._engine.is_sleeping():
            self._engine.wake_up(["weights"])
        else:
            self._finish_batches()
        self._engine.collective_rpc("start_weight_update")

    def load(self, update_info: dict[str, Any]) -> None:
        self._engine.collective_rpc("update_weights", args=(update_info,))

    def finish_update(self, version: int) -> int:
        """Start to use the new weights, and free cached prefixes of the old ones that no request uses."""
        self._engine.collective_rpc("finish_weight_update")
        self._engine.reset_prefix_cache()
        self._resume()
        self._run_version(version)
        return version

    def drop_update(self) -> None:
        """Abort an update. Also abort requests in flight, because nothing may be sampled from a mixture."""
        self._finish_batches()
        self.abort_request([*self._unfinished, *(sampled.request_id for sampled in self._early)])
        self._engine.collective_rpc("drop_weight_update")
        self._resume()
        self.is_updating = False

    def join(self, group: NcclGroup | None, rank: int) -> None:
        """Leave the former group, if there is one, and join `group`, this engine's first worker as `rank`."""
        self._engine.collective_rpc("shutdown_weight_transfer_engine")
        if group is not None:
            self._engine.collective_rpc("init_weight_transfer_engine", args=(nccl_init_info(group, rank),))

    def sleep(self) -> None:
        """Sleep at level 1: weights wait in host memory. Level 2 corrupts some models."""
        self._finish_batches()
        self._engine.sleep(level=1)

    def wake(self) -> None:
        self._engine.wake_up()

    def _run_version(self, version: int) -> None:
        """Note that whole weights of `version` are in use. vLLM labels the tokens that it returns from now on."""
        self.version, self.is_updating = version, False
        self._engine.set_weight_version(str(version))

    def _finish_batches(self) -> None:
        """Schedule nothing more until `_resume`, and take what the batches in flight sample, which read the weights.

        On a GPU vLLM has the next batch running when `step` returns.
        """
        self._engine.sleep(level=0, mode="keep")
        self._engine.collective_rpc("synchronize_device")
        for _ in range(self._engine.vllm_config.max_concurrent_batches):
            self._early += self._step()

    def _resume(self) -> None:
        """Schedule again; does nothing while memory is asleep, which `wake` takes back."""
        self._engine.wake_up(["scheduling"])


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
        enable_sleep_mode=spec.sleeps and has_gpu(),
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
