"""What a run finds on its GPUs before it starts: memory that a killed one still holds, and who holds the rest."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from orchestrator.cluster import gpu_memory
from orchestrator.cluster.gpu_memory import GpuMemoryError, GpuState, await_memory, read_states
from orchestrator.cluster.layout import Bundle, Layout
from orchestrator.cluster.placement import Placement
from orchestrator.config.recipe import load
from orchestrator.config.resolve import fraction_of_free
from tests.support.doctor import NVIDIA_SMI

RAY_WORKER = "ray::Generator (pid 4242, 20874 MiB)"


@pytest.fixture(autouse=True)
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Time passes only where somebody sleeps."""
    sleeps: list[float] = []
    clock = SimpleNamespace(monotonic=lambda: 1000 + sum(sleeps), sleep=sleeps.append)
    monkeypatch.setattr(gpu_memory, "time", clock)
    return sleeps


@pytest.fixture
def with_nvidia_smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "nvidia-smi").write_text(NVIDIA_SMI)
    (tmp_path / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)


def card(free_gib: float, *users: str) -> GpuState:
    return GpuState("GPU 0 of here (A card)", 24.0, free_gib, users)


def looks(*states: GpuState) -> Callable[[], dict[int, list[GpuState]]]:
    """One state after the other; the last one stays."""
    left = list(states)
    return lambda: {3: [left.pop(0) if len(left) > 1 else left[0]]}


def test_a_rerun_after_a_kill_waits_until_the_memory_is_free_and_says_who_holds_it(slept, caplog) -> None:
    await_memory(looks(card(2, RAY_WORKER), card(2, RAY_WORKER), card(23.5)), {3: 0.8}, timeout_s=300)
    assert len(slept) == 2 and len(caplog.records) == 1
    said = "waiting for memory: GPU 0 of here (A card) has 2.0 of 24.0 GiB free and this run needs 19.2; held by ray::"
    assert said in caplog.text and "pid 4242" in caplog.text


def test_memory_that_is_free_is_not_waited_for(slept, caplog) -> None:
    await_memory(looks(card(23.0)), {3: 0.9}, timeout_s=300)
    await_memory(dict, {}, timeout_s=300)  # nobody tells
    assert not slept and not caplog.records


def test_memory_that_stays_held_ends_the_run_with_the_name_of_who_holds_it(slept) -> None:
    with pytest.raises(GpuMemoryError, match=r"held by ray::Generator \(pid 4242, 20874 MiB\); waited .* = 40 s: end"):
        await_memory(looks(card(2, RAY_WORKER)), {3: 0.8}, timeout_s=40)
    assert sum(slept) == pytest.approx(40, abs=gpu_memory.POLL_S)
    with pytest.raises(GpuMemoryError, match="processes that cannot be seen from here"):
        await_memory(looks(card(2)), {3: 0.8}, timeout_s=0)


def test_a_learners_own_gpu_is_waited_for_a_minute_since_nobody_knows_what_it_takes(slept, caplog) -> None:
    await_memory(looks(card(20, "Xorg (pid 7, 3000 MiB)")), {}, timeout_s=300)
    assert sum(slept) == pytest.approx(gpu_memory.PATIENCE_S, abs=gpu_memory.POLL_S)
    assert "the run goes on, and may run out of memory" in caplog.text and "Xorg" in caplog.text


def test_the_state_of_gpus_is_that_of_those_which_are_visible(with_nvidia_smi) -> None:
    both = read_states({})
    assert [round(state.free_gib, 1) for state in both] == [23.6, 2.9]
    assert both[1].users == ("python3.11 (pid 4242, 20874 MiB)",)
    assert [state.free_gib for state in read_states({"CUDA_VISIBLE_DEVICES": "1"})] == [both[1].free_gib]
    assert read_states({"CUDA_VISIBLE_DEVICES": ""}) == []


def placement(layout: Layout, states: dict[int, list[GpuState]]) -> Placement:
    """A real one, but for the cluster."""
    made = Placement.__new__(Placement)
    made._config, made.layout = load(None), layout
    made.gpu_states = lambda: states  # type: ignore[method-assign]
    return made


PAIR = Layout("colocated", (Bundle(1, 2.0),), (0,), (0,), ())


def test_expandable_segments_are_refused_before_any_actor_starts(with_nvidia_smi) -> None:
    key = "PYTORCH_CUDA_ALLOC_CONF"
    states = {0: read_states({key: "expandable_segments:True", "CUDA_VISIBLE_DEVICES": "0"})}
    with pytest.raises(GpuMemoryError, match=rf"{key} = 'expandable_segments:True' on node .*unset it where the"):
        placement(PAIR, states).await_memory(0.5, shares_buffers=True)
    placement(PAIR, states).await_memory(0.5, shares_buffers=False)  # through the object store it does no harm


def test_what_generators_take_is_waited_for_where_they_are() -> None:
    apart = Layout("pods", (Bundle(1, 1.0), Bundle(1, 1.0)), (1,), (0,), ())
    states = {0: [card(23)], 1: [card(10)]}
    placement(apart, states).await_memory(0.4, shares_buffers=False)
    made = placement(apart, states)
    made._config = load(None, ["placement.start_timeout_s=1"])
    with pytest.raises(GpuMemoryError, match=r"has 10\.0 of 24\.0 GiB free and this run needs 12\.0"):
        made.await_memory(0.5, shares_buffers=False)
    assert made.free_share() == pytest.approx(10 / 24)


@pytest.mark.parametrize(("free", "fraction"), [(1.0, 0.9), (0.98, 0.88), (0.5, 0.45), (0.0, 0.01)])
def test_who_only_samples_takes_a_share_of_what_is_free(free: float, fraction: float) -> None:
    assert fraction_of_free(free) == fraction
