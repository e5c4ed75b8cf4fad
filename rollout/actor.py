"""The Ray actor around a generation engine. It passes every call on to the engine."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import ray

from rollout.config import RolloutConfig
from rollout.prompts.decoding import completion_decoder
from rollout.types.completions import Group
from rollout.types.packed import PackedGroup
from rollout.types.paths import refuse_missing_model
from rollout.types.prompts import Prompt
from rollout.types.publishing import IpcBucket, NcclGroup, WeightBucket, WeightManifest
from rollout.types.sampling import EngineSpec, Heartbeat, SamplingRequest
from rollout.types.turns import CompletionEnd, PackedTurns, TurnRequest, completion_of


class Generator:
    """Hosts one engine: `Engine.commit` says what `commit_weights` does, and so on.

    Streams, heartbeats and other calls have their own threads, so none waits for another.
    """

    def __init__(self, spec: EngineSpec, config: RolloutConfig) -> None:
        refuse_missing_model(spec.model_folder)
        # Imported here: this module also loads in the driver, which needs neither vLLM nor torch.
        from transformers import AutoTokenizer

        from rollout.engine.engine import Engine
        from rollout.engine.turns import turn_sampler

        tokenizer = AutoTokenizer.from_pretrained(spec.model_folder)
        self._engine = Engine(spec, config, completion_decoder(tokenizer), turn_sampler(spec, tokenizer))

    def __repr__(self) -> str:
        """Return the actor's name. Ray shows it with the actor, and its calls as `countdown/generator-0.generate`."""
        return ray.get_runtime_context().get_actor_name() or super().__repr__()

    def ready(self) -> int:
        """Return this process's id when the engine is ready."""
        return os.getpid()

    @ray.method(num_returns="streaming", concurrency_group="generate")
    def generate(self, request: SamplingRequest) -> Iterator[PackedGroup]:
        """Yield ungraded groups as they finish (a Ray streaming generator). Ends early when they are abandoned."""
        for group in self._engine.generate(request):
            yield PackedGroup.of(group)

    @ray.method(num_returns="streaming", concurrency_group="turns")
    def sample_turns(self, request: TurnRequest, *past: PackedTurns) -> Iterator[PackedTurns]:
        """Yield completions as their next turns end. Those so far are arguments so that Ray fetches them."""
        yield from self._engine.sample_turns(request, past)

    @ray.method(num_returns="streaming", concurrency_group="turns")
    def assemble(self, prompt: Prompt, endings: Sequence[CompletionEnd], *turns: PackedTurns) -> Iterator[PackedGroup]:
        """Yield the group of completions that have ended. Any generator can make it."""
        ended = zip(turns, endings, strict=True)
        yield PackedGroup.of(Group(prompt, tuple(completion_of(each.unpack(), ending) for each, ending in ended)))

    @ray.method(concurrency_group="heartbeat")
    def heartbeat(self) -> Heartbeat:
        """Return a sign of life at once, even while the engine is busy. Without an answer the process hangs."""
        return replace(self._engine.heartbeat(), peak_gib=self.peak_memory_gib())

    def abandon(self) -> int:
        """Abort every unfinished prompt between two decoding steps, and end the streams. Return how many there were.

        A stream that is read simply ends, after the groups that had finished. The same prompts can be asked again.
        """
        return self._engine.abandon()

    def stage_weights(self, attempt_id: int, version: int, *buckets: WeightBucket) -> None:
        """Stage weights that travel ahead of the commit. Buckets are arguments so that Ray fetches them."""
        self._engine.stage(attempt_id, version, buckets)

    def stage_manifest(self, attempt_id: int, version: int, manifest: WeightManifest) -> None:
        self._engine.stage(attempt_id, version, manifest=manifest)

    def commit_weights(self, attempt_id: int, timeout_s: float | None = None) -> int:
        return self._engine.commit(attempt_id, timeout_s)

    def drop_weights(self, attempt_id: int) -> None:
        self._engine.drop(attempt_id)

    def join_group(self, group: NcclGroup | None, rank: int) -> None:
        self._engine.join(group, rank)

    def begin_commit(self, attempt_id: int) -> None:
        self._engine.begin_commit(attempt_id)

    def load_bucket(self, bucket: IpcBucket) -> None:
        self._engine.load(bucket)

    def finish_commit(self, attempt_id: int) -> int:
        return self._engine.finish_commit(attempt_id)

    def sleep(self) -> None:
        self._engine.sleep()

    def wake(self) -> None:
        self._engine.wake()

    def peak_memory_gib(self) -> float:
        """Return the largest resident memory of this process so far, GiB."""
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def environment(config: RolloutConfig, fixes_kernels: bool = False) -> dict[str, str]:
    """Return the variables that must be set before vLLM is imported.

    `fixes_kernels`: whether to sample, on a GPU, by kernels whose results do not depend on what else is in a batch.
    """
    return {
        # The engine lives in the actor's own process: it starts in a third of the time, and dies with it.
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        "VLLM_CPU_KVCACHE_SPACE": str(config.cpu_kv_cache_gib),
        # Engines that share a machine would all be bound to the same first cores.
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "OMP_NUM_THREADS": str(config.threads_per_generator),
        # Threads that spin while they wait steal the core that another process needs.
        "OMP_WAIT_POLICY": "passive",
        # Without it the first batch waits for inductor to compile the logprob kernel (4 s on the CPU).
        **({} if config.compile else {"TORCHDYNAMO_DISABLE": "1"}),
        "VLLM_LOGGING_LEVEL": "ERROR",
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_USE_FLASHINFER_SAMPLER": "0",
        **({"VLLM_BATCH_INVARIANT": "1"} if fixes_kernels else {}),
        # Triton would round the inputs of float32 products to 10 bits; the learner does not.
        "TRITON_F32_DEFAULT": "ieee",
    }


CONCURRENCY: dict[str, Any] = {
    "max_concurrency": 8,
    "concurrency_groups": {"generate": 16, "turns": 64, "heartbeat": 1},
}
"""Ray's options for the calls that a generator answers at once: a stream for each step in flight and for prompts that a
lost generator left; one for completions that an environment answered at the same time; a heartbeat, which no other call
can delay; and eight others, of publishing and control."""

GeneratorActor = ray.remote(**CONCURRENCY)(Generator)
