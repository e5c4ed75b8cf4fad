"""A vLLM engine that streams finished groups, and takes new weights between two decoding steps."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, TypeVar

import numpy as np
from vllm.sampling_params import RequestOutputKind

from rollout.config import RolloutConfig
from rollout.engine.increments import increments
from rollout.engine.requests import sampled_logprobs, sampling_params, versions_of
from rollout.engine.step_loop import EngineStoppedError, StepLoop
from rollout.engine.turns import TurnSampler
from rollout.engine.versioned import SampledRequest, VersionedEngine
from rollout.types.completions import Completion, Group
from rollout.types.prompts import Prompt, Tokens
from rollout.types.publishing import IpcBucket, NcclGroup, WeightBucket, WeightManifest
from rollout.types.sampling import EngineSpec, Heartbeat, SamplingRequest, SamplingSettings, prompt_seed
from rollout.types.turns import PackedTurns, TurnRequest
from rollout.weights.staging import Staged, StagingArea, UnpublishedError, expected_shapes, manifest_of

T = TypeVar("T")

HALF_LOADED = "a publish failed half way: this generator has no whole weights, and its prompts in flight were dropped"


class PromptTooLongError(ValueError):
    """A prompt with its longest completion does not fit the engine's context."""


class Engine:
    """A generation engine and the loop that steps it. It may be called from several threads."""

    def __init__(
        self, spec: EngineSpec, config: RolloutConfig, decode: Callable[[Tokens], str], turns: TurnSampler | None = None
    ) -> None:
        """`decode` maps a completion's token ids to its text; `turns` is needed where an environment answers."""
        self._spec = spec
        self._turns = turns
        self._decode = decode
        self._staging = StagingArea(partial(expected_shapes, spec.model_folder))
        self._loop = StepLoop(partial(VersionedEngine, spec, config))

    def generate(self, request: SamplingRequest) -> Iterator[Group]:
        """Yield the ungraded group of each prompt as it finishes.

        Ends early, without an error, when the prompts are abandoned: the caller knows which groups it did not get.
        Raises PromptTooLongError before anything is sampled, UnpublishedError when the engine has no weights yet.
        """
        by_id = {prompt.id: prompt for prompt in request.prompts}
        if len(by_id) < len(request.prompts):
            raise ValueError(f"{len(request.prompts) - len(by_id)} prompts share an id with another of the same call")
        asked = [
            (
                prompt.id,
                {"prompt_token_ids": self._fitting(prompt, request.sampling).token_ids.tolist()},
                sampling_params(request.sampling, request.group_size, prompt_seed(request.seed, prompt.id)),
            )
            for prompt in request.prompts
        ]
        for sampled in self._loop.stream(asked):
            yield self._group(by_id[sampled.request_id], sampled)

    def sample_turns(self, request: TurnRequest, past: Sequence[PackedTurns]) -> Iterator[PackedTurns]:
        """Yield each completion with its next turn, when that turn ends; at once if there is no room for a turn.

        `past` has the completions without this turn. Ends early and raises as `generate` does.
        """
        assert self._turns is not None, "the engine was built for completions of one turn"
        for turn in request.turns:
            self._fitting(turn.prompt, request.sampling)
        yield from self._turns.sample(request, [packed.unpack() for packed in past], self._loop.stream)

    def stream(self, prompt: Prompt, sampling: SamplingSettings, seed: int) -> Iterator[str]:
        """Yield the text of one completion in pieces, as it is sampled. Raises as `generate` does."""
        params = sampling_params(sampling, 1, prompt_seed(seed, prompt.id))
        params.output_kind = RequestOutputKind.DELTA
        request = (prompt.id, {"prompt_token_ids": self._fitting(prompt, sampling).token_ids.tolist()}, params)
        return increments((sampled.outputs[0].token_ids for sampled in self._loop.stream([request])), self._decode)

    def heartbeat(self) -> Heartbeat:
        """Return a sign of life at once, without waiting for the decoding step that runs."""
        return Heartbeat(self._loop.engine.version, self._loop.num_unfinished, self._loop.decoding_steps)

    def abandon(self) -> int:
        """Abort every unfinished prompt between two steps. Their `generate` ends without them. Return how many."""
        return self._loop.abandon()

    def stage(
        self,
        attempt_id: int,
        version: int,
        buckets: Sequence[WeightBucket] = (),
        manifest: WeightManifest | None = None,
    ) -> None:
        """Check a version and keep it for `commit`; decoding goes on.

        Args:
            attempt_id: of the attempt at a publish; later attempts have larger ones.
            version: of the policy.
            buckets: the weights, where they travel ahead of the commit.
            manifest: what will be sent, where the weights travel at the commit.

        Raises StagingError when it is not a whole version of this engine's model, or damaged.
        """
        manifest = manifest or manifest_of(buckets)
        self._staging.stage(Staged(attempt_id, version, manifest, tuple(buckets)))

    def drop(self, attempt_id: int) -> None:
        """Drop what was staged, and abort an update that has started.

        Then prompts in flight end with UnpublishedError, and new ones are refused until a whole version has come.
        """
        self._staging.drop(attempt_id)
        if self._loop.engine.is_updating:
            self._loop.call(lambda engine: engine.drop_update())
            self._loop.abandon(UnpublishedError(HALF_LOADED))

    def commit(self, attempt_id: int, timeout_s: float | None = None) -> int:
        """Replace all weights between two decoding steps by what the attempt staged. Return the version now in use.

        `timeout_s`: how long NCCL may take, where it brings them. Raises StagingError when nothing is staged (any
        more). When loading fails, the update is given up as `drop` does.
        """
        staged = self._staging.take(attempt_id)
        infos = [{"bucket": bucket} for bucket in staged.buckets]
        if timeout_s is not None:
            infos = [names_and_shapes(staged.manifest) | {"timeout_s": timeout_s}]
        return self._update(lambda engine: engine.replace_weights(infos, staged.version))

    def begin_commit(self, attempt_id: int) -> None:
        """Start to replace the weights, which then come by `load`. Nothing is decoded until `finish_commit`."""
        self._staging.check(attempt_id)
        self._update(lambda engine: engine.begin_update())

    def load(self, bucket: IpcBucket) -> None:
        """Copy one bucket out of the learner's GPU memory. When this returns the learner may fill its buffer again."""
        buffer = {"ipc_handles": dict(bucket.handles), "tensor_sizes": list(bucket.num_bytes)}
        info = names_and_shapes(bucket) | buffer
        self._update(lambda engine: engine.load(info))

    def finish_commit(self, attempt_id: int) -> int:
        """Start to use the loaded weights, and return their version."""
        version = self._staging.take(attempt_id).version
        return self._update(lambda engine: engine.finish_update(version))

    def join(self, group: NcclGroup | None, rank: int) -> None:
        """Leave the former group, if there is one, and join `group` with this engine's workers, the first as `rank`."""
        self._loop.call(lambda engine: engine.join(group, rank))

    def sleep(self) -> None:
        """Free the GPU's memory for the learner."""
        self._loop.call(lambda engine: engine.sleep())

    def wake(self) -> None:
        """Take the GPU's memory back."""
        self._loop.call(lambda engine: engine.wake())

    def close(self) -> None:
        """Stop decoding. Callers that still wait get EngineStoppedError."""
        self._loop.close()

    def _update(self, action: Callable[[VersionedEngine], T]) -> T:
        """Run a part of an update; if it fails, abort the update before anything is decoded again."""

        def attempt(engine: VersionedEngine) -> T:
            try:
                return action(engine)
            except Exception:
                engine.drop_update()
                raise

        try:
            return self._loop.call(attempt)
        except EngineStoppedError:
            raise
        except Exception:
            self._loop.abandon(UnpublishedError(HALF_LOADED))
            raise

    def _fitting(self, prompt: Prompt, sampling: SamplingSettings) -> Prompt:
        observed = self._spec.turns.max_observed_tokens if self._spec.turns else 0
        needed = len(prompt.token_ids) + sampling.max_completion_tokens + observed
        if needed > self._spec.max_model_len:
            and_observed = f" and environment.max_observed_tokens = {observed}" if observed else ""
            raise PromptTooLongError(
                f"prompt {prompt.id} has {len(prompt.token_ids)} tokens; with sampling.max_completion_tokens = "
                f"{sampling.max_completion_tokens}{and_observed} it needs {needed} and the engine holds "
                f"{self._spec.max_model_len}: raise prompts.max_prompt_tokens or shorten the prompt"
            )
        return prompt

    def _group(self, prompt: Prompt, sampled: SampledRequest) -> Group:
        outputs = sorted(sampled.outputs, key=lambda output: output.index)
        return Group(prompt, tuple(self._completion(output) for output in outputs))

    def _completion(self, output: Any) -> Completion:
        token_ids = np.asarray(output.token_ids, dtype=np.int32)
        return Completion(
            token_ids=token_ids,
            rollout_logprobs=sampled_logprobs(output),
            finish_reason="length" if output.finish_reason == "length" else "stop",
            policy_versions=versions_of(output),
            text=self._decode(token_ids),
        )


def names_and_shapes(weights: WeightManifest | IpcBucket) -> dict[str, Any]:
    """Return names, dtypes and shapes in the form of vLLM's weight-transfer engines."""
    return {
        "names": list(weights.names),
        "dtype_names": list(weights.dtypes),
        "shapes": [list(shape) for shape in weights.shapes],
    }
