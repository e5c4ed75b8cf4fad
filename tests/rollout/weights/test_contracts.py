"""What the GPU path asks of vLLM, checked on the CPU's wheel, whose Python files are those of the CUDA wheel.

Three files differ (benchmarks/cards/gpu_set.py compares the wheels): none of those that are asked here.
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from rollout.engine.engine import names_and_shapes
from rollout.engine.versioned import nccl_init_info
from rollout.types.publishing import IpcBucket, NcclGroup, WeightManifest

ROOT = Path(__file__).resolve().parents[3]
MANIFEST = WeightManifest(("a",), ("bfloat16",), ((2, 2),))
GROUP = NcclGroup("127.0.0.1", 29500, world_size=3, buffer_bytes=2**20)


def calls(function: str, *files: str) -> list[ast.Call]:
    """Every call of a function of that name in these files."""
    trees = [ast.parse((ROOT / file).read_text()) for file in files]
    return [
        node
        for tree in trees
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and getattr(node.func, "attr", getattr(node.func, "id", "")) == function
    ]


def bind(function: Any, call: ast.Call, *leading: object) -> None:
    """Raise TypeError unless the function takes as many arguments as the call gives, under their names."""
    positional = [*leading, *(object() for _ in call.args)]
    inspect.signature(function).bind(*positional, **{keyword.arg or "_": object() for keyword in call.keywords})


def remote_calls() -> dict[str, int]:
    """The methods of vLLM's workers that our engine calls by name, and with how many arguments."""
    found: dict[str, int] = {}
    for call in calls("collective_rpc", "rollout/engine/versioned.py"):
        name, arguments = call.args[0], [keyword.value for keyword in call.keywords if keyword.arg == "args"]
        assert isinstance(name, ast.Constant), ast.unparse(call)
        found[name.value] = len(arguments[0].elts) if arguments and isinstance(arguments[0], ast.Tuple) else 0
    return found


def test_the_engine_calls_its_workers_by_these_names() -> None:
    """So that the next test tests something."""
    assert {
        "synchronize_device",
        "start_weight_update",
        "update_weights",
        "drop_weight_update",
    } <= remote_calls().keys()


@pytest.mark.parametrize(("name", "count"), remote_calls().items())
def test_a_gpus_worker_has_the_method(name: str, count: int) -> None:
    from vllm.v1.worker.gpu_worker import Worker

    from rollout.weights.object_store import WorkerExtension

    method = getattr(Worker, name, None) or getattr(WorkerExtension, name)
    inspect.signature(method).bind(object(), *range(count))


def test_what_we_add_to_the_worker_hides_nothing_of_its_own() -> None:
    """VLLM refuses an extension that does, on a GPU as on the CPU."""
    from vllm.v1.worker.gpu_worker import Worker

    from rollout.weights.object_store import WorkerExtension

    ours = {name for name in vars(WorkerExtension) if not name.startswith("__")}
    assert "drop_weight_update" in ours and not [name for name in ours if hasattr(Worker, name)]


def test_the_worker_has_what_our_method_touches() -> None:
    """Dropping an update resets the worker's own flag, which its constructor sets."""
    from vllm.distributed.weight_transfer.base import WeightTransferEngine
    from vllm.v1.worker.gpu_worker import Worker

    source = inspect.getsource(Worker.__init__)
    assert "self._weight_update_active = False" in source and "self.weight_transfer_engine" in source
    assert callable(WeightTransferEngine.reset_weight_update_target)


def engine_calls() -> dict[str, list[ast.Call]]:
    """All calls of vLLM's engine, by method."""
    found: dict[str, list[ast.Call]] = {}
    for node in ast.walk(ast.parse((ROOT / "rollout/engine/versioned.py").read_text())):
        if isinstance(node, ast.Call) and ast.unparse(node.func).startswith("self._engine."):
            found.setdefault(ast.unparse(node.func).removeprefix("self._engine."), []).append(node)
    return found


@pytest.mark.parametrize(("name", "ours"), engine_calls().items())
def test_the_engine_takes_our_calls(name: str, ours: list[ast.Call]) -> None:
    from vllm import LLMEngine

    for call in ours:
        bind(getattr(LLMEngine, name), call, object())


def test_these_calls_are_among_them() -> None:
    """So that the test above tests something."""
    assert {"step", "sleep", "wake_up", "set_weight_version", "collective_rpc"} <= engine_calls().keys()


def test_an_engine_asleep_schedules_nothing_until_all_of_its_memory_is_back() -> None:
    """VLLM's own functions, on memory of paper: weights come while the KV cache sleeps."""
    from vllm.v1.engine.core import EngineCore
    from vllm.v1.executor.abstract import Executor

    events: list[str] = []

    class Memory:
        is_sleeping, wake_up, sleeping_tags = Executor.is_sleeping, Executor.wake_up, {"weights", "kv_cache"}

        def collective_rpc(self, method: str, kwargs: dict[str, Any]) -> None:
            events.append(f"{method} {kwargs['tags']}")

    core: Any = SimpleNamespace(model_executor=Memory(), resume_scheduler=lambda: events.append("schedules"))
    for tags in (["weights"], ["scheduling"], None):
        EngineCore.wake_up(core, tags)
    assert events == ["wake_up ['weights']", "wake_up None", "schedules"]


def test_a_bucket_of_ipc_is_what_vllms_engine_unpacks() -> None:
    """As `Engine.load` sends it; and the engine is told that it is packed."""
    from vllm.distributed.weight_transfer.ipc_engine import IPCWeightTransferInitInfo, IPCWeightTransferUpdateInfo

    bucket = IpcBucket(("a",), ("bfloat16",), ((2, 2),), (8,), {"GPU-1": (1, 2)})
    sent = names_and_shapes(bucket) | {"ipc_handles": dict(bucket.handles), "tensor_sizes": list(bucket.num_bytes)}
    info = IPCWeightTransferUpdateInfo(**sent)
    assert (info.ipc_handles, info.tensor_sizes) == ({"GPU-1": (1, 2)}, [8])
    assert IPCWeightTransferInitInfo(packed=True).packed
    assert any(
        "{'packed': True}" in ast.unparse(call) for call in calls("collective_rpc", "rollout/engine/versioned.py")
    )


def test_both_ends_of_nccl_are_told_the_same_sizes() -> None:
    from vllm.distributed.weight_transfer.nccl_common import NCCLWeightTransferInitInfo

    info = NCCLWeightTransferInitInfo(**nccl_init_info(GROUP, rank=1))
    assert (info.packed, info.packed_buffer_size_bytes, info.packed_num_buffers) == (True, 2**20, 2)
    assert (info.rank_offset, info.world_size, info.master_port) == (1, 3, 29500)


def test_a_broadcasts_deadline_travels_with_its_list_of_weights() -> None:
    from rollout.weights.nccl import DeadlineNcclWeightTransferEngine, DeadlineUpdateInfo

    assert DeadlineNcclWeightTransferEngine.update_info_cls is DeadlineUpdateInfo
    info = DeadlineUpdateInfo(**names_and_shapes(MANIFEST), timeout_s=3.0)
    assert (info.timeout_s, info.shapes) == (3.0, [[2, 2]])


@pytest.mark.parametrize("name", ["packed_ipc_producer", "packed_nccl_broadcast_producer"])
def test_vllms_packers_take_our_calls(name: str) -> None:
    from vllm.distributed.weight_transfer import packed_tensor

    for call in calls(name, "learner/weights/senders.py"):
        bind(getattr(packed_tensor, name), call)
    assert calls(name, "learner/weights/senders.py")


def test_the_chunks_of_ipc_have_the_fields_that_we_send_on() -> None:
    from vllm.distributed.weight_transfer.packed_tensor import PackedIpcChunk

    fields = {field.name for field in dataclasses.fields(PackedIpcChunk)}
    assert {"names", "dtype_names", "shapes", "tensor_sizes", "ipc_handle"} <= fields


def test_a_group_is_joined_by_a_dictionary_and_left_by_destroying_it() -> None:
    from vllm.distributed.device_communicators.pynccl import PyNcclCommunicator
    from vllm.distributed.weight_transfer.nccl_common import trainer_init

    for call in calls("trainer_init", "learner/weights/senders.py"):
        bind(trainer_init, call)
    source = inspect.getsource(trainer_init)
    assert all(f'init_info["{key}"]' in source for key in ("master_address", "master_port", "world_size"))
    assert callable(PyNcclCommunicator.destroy)


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("object_store", "ArrayWeightTransferEngine"),
        ("ipc", "SettlingIpcWeightTransferEngine"),
        ("nccl", "DeadlineNcclWeightTransferEngine"),
    ],
)
def test_what_our_engines_override_is_called_as_before(module: str, name: str) -> None:
    """By vLLM's workers, and by each other."""
    engine = getattr(import_module(f"rollout.weights.{module}"), name)
    overridden = [
        (method, base)
        for method in vars(engine)
        if inspect.isfunction(getattr(engine, method)) and (base := getattr(engine.__base__, method, None))
    ]
    assert overridden and not engine.__abstractmethods__
    for method, base in overridden:
        assert inspect.signature(getattr(engine, method)).parameters.keys() == inspect.signature(base).parameters.keys()


def test_the_importer_of_ipc_has_what_we_ask_of_it() -> None:
    """Whether a buffer was opened, and to let go of it."""
    from vllm.distributed.weight_transfer.ipc_engine import IPCWeightTransferEngine
    from vllm.distributed.weight_transfer.packed_tensor import PackedBufferImporter

    assert "self._packed_importer = " in inspect.getsource(IPCWeightTransferEngine)
    importer = PackedBufferImporter()
    assert importer._entry is None and importer.close() is None


def test_torch_has_what_the_end_of_a_transfer_calls() -> None:
    import torch

    for name in ("ipc_collect", "empty_cache", "synchronize", "set_per_process_memory_fraction", "mem_get_info"):
        assert callable(getattr(torch.cuda, name))
