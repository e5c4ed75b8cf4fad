"""The Ray shell of one learner rank. ``Learner`` does the work."""

from __future__ import annotations

import resource
import socket
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import ray
import ray.util
from numpy.typing import NDArray

from learner.config import LearnerConfig, ModelConfig
from learner.metrics import Update
from rollout.types.completions import Reward
from rollout.types.packed import PackedGroup
from rollout.types.paths import refuse_missing_model
from rollout.types.prompts import SupervisedExample
from rollout.types.publishing import IpcBucket, NcclGroup, WeightBucket, WeightManifest

if TYPE_CHECKING:
    from learner.learner import Learner


def actor_options(config: LearnerConfig, *, use_gpu: bool, fixes_kernels: bool = False) -> dict[str, Any]:
    """Return Ray's options for one rank: resources, and the environment to set before torch is imported.

    `fixes_kernels`: whether the rank uses deterministic kernels.
    """
    environment = {
        "OMP_NUM_THREADS": str(config.threads_per_rank or 1),
        # A thread that spins while it waits uses a core that the generator or another rank needs.
        "OMP_WAIT_POLICY": "passive",
        "TOKENIZERS_PARALLELISM": "false",
    }
    if not use_gpu:
        # Hide a GPU that the node may have: torch would choose nccl for it.
        environment |= {"DS_ACCELERATOR": "cpu", "CUDA_VISIBLE_DEVICES": ""}
    if fixes_kernels:
        # cuBLAS needs a fixed workspace; transformers passes the other variable on to flash-attn.
        environment |= {"CUBLAS_WORKSPACE_CONFIG": ":4096:8", "FLASH_ATTENTION_DETERMINISTIC": "1"}
    return {
        "num_cpus": config.cpus_per_rank,
        "num_gpus": 1 if use_gpu else 0,
        "runtime_env": {"env_vars": environment},
    }


class LearnerRank:
    """One rank in its own process.

    Its heartbeat has its own thread, and answers even while the rank computes. ``start`` builds its Learner. A second
    ``start`` replaces the Learner but keeps the process with its imports: a run does this after its warm start. Every
    other method calls the Learner's method of the same name; ``ipc_…`` and ``nccl_…`` call its senders.
    """

    def __init__(self, fixes_kernels: bool = False) -> None:
        """`fixes_kernels`: whether to use deterministic kernels; an operation without one then raises."""
        # Imported here, because the driver also loads this module, and needs neither torch nor deepspeed. Imported now,
        # because a process may not answer for long while it loads libraries.
        import torch

        import learner.learner  # noqa: F401

        if fixes_kernels:
            torch.use_deterministic_algorithms(True)
        self._learner: Learner | None = None

    def __repr__(self) -> str:
        """Return the actor's name. Ray shows it with the actor, and its calls as ``countdown/learner-0.update``."""
        return ray.get_runtime_context().get_actor_name() or super().__repr__()

    @ray.method(concurrency_group="heartbeat")
    def heartbeat(self) -> int:
        """Return at once the number of microbatches that its Learner has computed. No answer: the process hangs."""
        return 0 if self._learner is None else self._learner.num_microbatches

    def reserve_address(self) -> tuple[str, int]:
        """Return this node's address and a free port; all ranks connect to those of rank 0."""
        with socket.socket() as probe:
            probe.bind(("", 0))
            return ray.util.get_node_ip_address(), probe.getsockname()[1]

    def start(
        self,
        config: LearnerConfig,
        model: ModelConfig,
        folder: Path | str,
        *,
        rank: int,
        master: tuple[str, int],
        num_steps: int,
        temperature: float,
        max_completion_tokens: int,
    ) -> None:
        """Build this rank's Learner (see its arguments). Return when all ``config.num_ranks`` ranks are connected."""
        for source in (folder, model.teacher):
            if source is not None:
                refuse_missing_model(str(source))
        from learner.backend.rank import Rank, release_memory
        from learner.learner import Learner

        if self._learner is not None:
            self._learner.close()
            self._learner = None
            release_memory()
        self._learner = Learner(
            config,
            model,
            folder,
            Rank(rank, config.num_ranks, *master),
            num_steps=num_steps,
            temperature=temperature,
            max_completion_tokens=max_completion_tokens,
        )

    def update(
        self, step: int, totals: Sequence[Sequence[float]], records_logprobs: bool, *packed: PackedGroup
    ) -> Update:
        """Update on groups with their total rewards. Each group is an argument of its own, so that Ray fetches it."""
        groups = [
            group.unpack().scored(tuple(Reward(total, ()) for total in group_totals))
            for group, group_totals in zip(packed, totals, strict=True)
        ]
        return self._measured(self.learner.update(step, groups, records_logprobs=records_logprobs))

    def score_again(self) -> NDArray[np.float16]:
        return self.learner.score_again()

    def supervised_update(self, step: int, examples: Sequence[SupervisedExample]) -> Update:
        return self._measured(self.learner.supervised_update(step, examples))

    def weight_buckets(self, max_bytes: int) -> Iterator[WeightBucket]:
        """Return to the caller a stream of object references, one for each bucket."""
        yield from self.learner.weight_buckets(max_bytes)

    def weight_manifest(self) -> WeightManifest:
        return self.learner.weight_manifest()

    def ipc_begin(self, bucket_bytes: int, lost: Collection[int] = ()) -> None:
        self.learner.ipc.begin(bucket_bytes, lost)

    def ipc_next(self) -> IpcBucket | None:
        return self.learner.ipc.next_bucket()

    def ipc_end(self, opened: Collection[int] = ()) -> None:
        self.learner.ipc.end(opened)

    def nccl_join(self, group: NcclGroup) -> None:
        self.learner.nccl.join(group)

    def nccl_broadcast(self, timeout_s: float) -> None:
        self.learner.nccl.broadcast(timeout_s)

    def export(self, folder: Path) -> None:
        self.learner.export(folder)

    def save(self, folder: Path) -> dict[str, str]:
        return self.learner.save(folder)

    def load(self, folder: Path) -> None:
        self.learner.load(folder)

    def release_memory(self) -> None:
        """Return cached GPU memory to the device."""
        from learner.backend.rank import release_memory

        release_memory()

    def _measured(self, update: Update) -> Update:
        return replace(update, peak_gib=self.peak_memory_gib())

    def peak_memory_gib(self) -> float:
        """Return the largest resident memory of this process so far, in GiB."""
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20

    @property
    def learner(self) -> Learner:
        """The Learner that the last ``start`` built. Raises RuntimeError before the first."""
        if self._learner is None:
            raise RuntimeError("this learner rank was not started: call start() first")
        return self._learner


CONCURRENCY: dict[str, Any] = {"max_concurrency": 1, "concurrency_groups": {"heartbeat": 1}}
"""Ray's options: one call at a time, and a heartbeat beside it."""

LearnerActor = ray.remote(**CONCURRENCY)(LearnerRank)
