"""The memory plan against arithmetic done by hand."""

import subprocess
import sys

import pytest

from learner.memory import LearnerSizes
from orchestrator.cli import main
from orchestrator.config.recipe import ConfigError, load
from orchestrator.plan.gpu_models import GPUS, gpu_model
from orchestrator.plan.memory_plan import memory_plan, planned_fraction
from orchestrator.plan.model_shapes import shape_of
from rollout.types.memory_terms import ALWAYS

GIB = 2**30
MIB = 2**20
CARD = gpu_model("24")
P_05, P_15, P_17, P_3 = 494_032_768, 1_543_714_304, 1_720_574_976, 3_085_938_688
QWEN_05, QWEN_15 = "model.path=Qwen/Qwen2.5-0.5B-Instruct", "model.path=Qwen/Qwen2.5-1.5B-Instruct"
QWEN_17, QWEN_3 = "model.path=Qwen/Qwen3-1.7B-Base", "model.path=Qwen/Qwen2.5-3B-Instruct"
OFFLOAD = "learner.offload_optimizer=true"


def run(*overrides: str):
    """Prompts of 256, completions of 1,024 tokens, 128 at once, microbatches of 8,192, checkpointing, a reference."""
    return load("countdown-4090", overrides)


def plan_of(*overrides: str, gpu=CARD):
    config = run(*overrides)
    return memory_plan(config, shape_of(config.model), gpu)


def held(plan, actor: str, phase: str) -> dict[str, float]:
    return {term.name: term.num_bytes for term in plan.terms if term.actor == actor and phase in term.phases}


def test_the_formulas_load_nothing_heavy() -> None:
    code = "import sys, learner.memory, rollout.memory; print(*{'torch', 'deepspeed', 'vllm', 'ray'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.split() == []


def test_half_a_billion_fits_with_the_optimizer_on_the_card() -> None:
    plan = plan_of(QWEN_05)
    layer = 2 * 8 * 896 + 5 * 2 * 896 + 4 * 2 * 4864
    stays = {
        "CUDA context": 800 * MIB,
        "weights": 2 * P_05,
        "master weights": 4 * P_05,
        "optimizer moments": 8 * P_05,
        "reference, copy": 2 * P_05,
    }
    assert held(plan, "learner", "generating") == stays | {"publish buffer": 2 * 151_936 * 896}
    assert held(plan, "learner", "backward") == stays | {
        "gradients": 2 * P_05,
        "activations": 8192 * (24 * 2 * 896 + 2 * layer + 16 * 896),
        "logits chunk": 4 * 64 * MIB,
    }
    # The gradients, the same flattened, and that in float32.
    step = 2 * P_05 + 2 * P_05 + 4 * P_05 + 2 * 50_000_000
    assert held(plan, "learner", "optimizer step") == stays | {"gradients, applied": step}
    # While the learner works, the generator keeps its context and its graphs.
    asleep = 800 * MIB + 512 * MIB
    assert plan.num_bytes("optimizer step") == pytest.approx(16 * P_05 + step + 800 * MIB + asleep)
    # 7.4 + 3.8 + 2.1 of 22.8 GiB
    assert plan.num_bytes("optimizer step") / GIB == pytest.approx(13.2, abs=0.05) and plan.fits


def test_the_kv_cache_is_what_the_share_leaves() -> None:
    cache = plan_of(QWEN_05, "rollout.gpu_memory_fraction=0.4").kv_cache
    assert cache.bytes_per_token == 2 * 24 * 2 * 64 * 2 == 12_288
    forward = 8192 * 2 * (2 * 896 + 3 * 4864) + 128 * 151_936 * 14
    assert cache.num_bytes == pytest.approx(0.4 * 24 * GIB - 2 * P_05 - forward - 512 * MIB)
    # 7.68 GiB of completions of 1,280 tokens, each 15 MiB
    assert cache.num_completions == int(cache.num_bytes // (1280 * 12_288)) == 524


def test_kv_heads_and_layers_decide_what_a_token_costs() -> None:
    per_token = {name: plan_of(name).kv_cache.bytes_per_token for name in (QWEN_15, QWEN_17, QWEN_3)}
    assert per_token == {
        QWEN_15: 2 * 28 * 2 * 128 * 2,  # 28 KiB
        QWEN_17: 2 * 28 * 8 * 128 * 2,  # 112 KiB: four times the heads
        QWEN_3: 2 * 36 * 2 * 128 * 2,  # 36 KiB
    }


def test_the_warm_start_of_a_lora_trains_all_weights() -> None:
    lora, warm = "model.lora={rank=16}", ("warm_start.num_steps=10", "warm_start.data=pairs.jsonl")
    assert plan_of(QWEN_3, lora).fits and plan_of(QWEN_05, lora, *warm).fits
    plan = plan_of(QWEN_3, lora, *warm)
    # Weights 2, master weights 4, moments 8, and 8 in the step, without a reference; 2 contexts, graphs and a bucket.
    needed = 22 * P_3 + 2 * 800 * MIB + 512 * MIB + 2 * 50_000_000
    assert plan.warm_start_bytes("optimizer step") == pytest.approx(needed)
    assert f"optimizer step: {needed / GIB - 0.95 * 24:.2f} GiB too much" in "\n".join(plan.problems())
    # `rayzero sft` trains the adapters, and a run without LoRA needs as much itself.
    assert plan_of(QWEN_3, lora, *warm, "num_steps=0").fits
    assert plan_of(QWEN_05, *warm).warm_start is None


@pytest.mark.parametrize(
    ("model", "parameters", "too_much_gib"),
    # weights 2, reference 2, master weights 4, moments 8, and 8 in the step: 24 bytes a parameter, 2 contexts, graphs
    # and a bucket on their way, against 24 GiB less 5%
    [(QWEN_15, P_15, 13.9), (QWEN_17, P_17, 17.8), (QWEN_3, P_3, 48.3)],
)
def test_larger_ones_do_not_fit_with_the_optimizer_on_the_card(model, parameters, too_much_gib) -> None:
    plan = plan_of(model)
    needed = 24 * parameters + 2 * 800 * MIB + 512 * MIB + 2 * 50_000_000
    assert plan.num_bytes("optimizer step") == pytest.approx(needed)
    assert needed / GIB - 0.95 * 24 == pytest.approx(too_much_gib, abs=0.06)
    assert not plan.fits and any(problem.startswith("optimizer step") for problem in plan.problems())


@pytest.mark.parametrize(
    ("model", "parameters", "embedding", "host_gib"),
    # Host memory: 8 bytes of moments; 4 + 4 + 2 that are pinned, each rounded up to a power of two
    [
        (QWEN_15, P_15, 151_936 * 1536, 8 * P_15 / GIB + 8 + 8 + 4),
        (QWEN_17, P_17, 151_936 * 2048, 8 * P_17 / GIB + 8 + 8 + 4),
        (QWEN_3, P_3, 151_936 * 2048, 8 * P_3 / GIB + 16 + 16 + 8),
    ],
)
def test_they_fit_with_the_optimizer_in_host_memory(model, parameters, embedding, host_gib) -> None:
    plan = plan_of(model, OFFLOAD, "learner.algorithm.kl_beta=0", "rollout.gpu_memory_fraction=0.45")
    stays = {"CUDA context": 800 * MIB, "weights": 2 * parameters, "offload's buffer": 2 * embedding}
    assert held(plan, "learner", "generating") == stays | {"publish buffer": 2 * embedding}
    # All gradients, a bucket, the largest one twice, and its norm in float64.
    step = 2 * parameters + 2 * 50_000_000 + 2 * 2 * embedding + 8 * embedding
    assert held(plan, "learner", "optimizer step") == stays | {"gradients, applied": step}
    (offloaded,) = [term.num_bytes for term in plan.host if term.name == "offloaded optimizer"]
    assert offloaded / GIB == pytest.approx(host_gib)
    assert plan.fits


def test_every_buffer_of_a_publish_is_planned() -> None:
    """A bucket at the learner, its copy at the generator, and a layer that vLLM puts together beside the old one."""
    embedding, bucket = 2 * 151_936 * 2048, 1024 * MIB

    def buffers(*overrides: str) -> dict[str, float]:
        terms = plan_of(QWEN_3, "model.lora={rank=32}", *overrides).terms
        return {term.actor: term.num_bytes for term in terms if term.name.startswith("publish buffer")}

    assert buffers() == {"learner": embedding, "generator": 2 * embedding}
    assert buffers("rollout.publish_bucket_mib=1024") == {"learner": bucket, "generator": 2 * bucket}
    assert buffers("rollout.publish_backend=ray") == {"generator": 2 * embedding}
    moving = 2 * (256 * MIB + embedding)
    assert buffers("placement.mode=pods") == {"learner": moving, "generator": moving + embedding}


def test_what_cannot_take_turns_is_not_planned_to() -> None:
    assert plan_of("placement.mode=auto").colocated
    for setting in ("max_staleness=1", "rollout.num_generators=2", "rollout.tensor_parallel_size=2"):
        assert not plan_of("placement.mode=auto", setting).colocated


def test_ranks_share_what_their_stage_shares() -> None:
    def learner(*overrides: str) -> dict[str, float]:
        return held(
            plan_of(QWEN_15, "placement.mode=auto", "learner.num_ranks=4", "rollout.num_generators=4", *overrides),
            "learner",
            "backward",
        )

    first, second, third = (learner(f"learner.zero_stage={stage}") for stage in (1, 2, 3))
    assert first["optimizer moments"] == 8 * P_15 / 4 and first["master weights"] == 4 * P_15 / 4
    assert first["gradients"] == 2 * P_15
    assert second["gradients"] == 2 * 2 * P_15 / 4 + 2 * 50_000_000 + 2 * 151_936 * 1536
    assert third["weights"] == 2 * P_15 / 4 and third["gradients, kept"] == 2 * P_15 / 4


def test_adapters_alone_are_trained_and_the_base_is_the_reference() -> None:
    plan = plan_of(QWEN_3, "model.lora={rank=16}")
    # q, o: 2048 and 2048; k, v: 2048 and 256; gate, up, down: 2048 and 11008
    adapters = 36 * 16 * (2 * (2048 + 2048) + 2 * (2048 + 256) + 3 * (2048 + 11_008))
    trained, parameters = plan.sizes.T, plan.sizes.P
    assert (trained, parameters) == (adapters, P_3 + adapters)
    learner = held(plan, "learner", "generating")
    assert learner["optimizer moments"] == 8 * adapters and learner["weights"] == 2 * (P_3 + adapters)
    assert not [name for name in learner if name.startswith("reference")]


def test_an_offloaded_reference_is_gone_while_generating() -> None:
    plan = plan_of(QWEN_05, "learner.algorithm.reference=offloaded")
    there = {phase: "reference, offloaded" in held(plan, "learner", phase) for phase in ALWAYS}
    assert there == {"generating": False, "backward": True, "optimizer step": True}
    assert any(term.name == "reference" and term.num_bytes == 2 * P_05 for term in plan.host)


def test_a_teacher_takes_the_references_place_with_its_own_size() -> None:
    taught = (QWEN_05, "model.teacher=Qwen/Qwen2.5-3B-Instruct", "learner.algorithm.preset=distill")
    plan = plan_of(*taught)
    for phase in ALWAYS:
        assert held(plan, "learner", phase)["reference, copy"] == 2 * P_3
    assert held(plan, "learner", "backward")["logits chunk"] == 5 * 64 * MIB  # of both models
    assert held(plan_of(*taught, "model.lora={rank=16}"), "learner", "backward")["reference, copy"] == 2 * P_3
    offloaded = plan_of(*taught, "learner.algorithm.reference=offloaded")
    assert any(term.name == "reference" and term.num_bytes == 2 * P_3 for term in offloaded.host)


def test_a_teacher_whose_config_cannot_be_had_is_named() -> None:
    with pytest.raises(ConfigError, match=r"model\.teacher = 'runs/no-such/final'"):
        plan_of(QWEN_05, "model.teacher=runs/no-such/final", "learner.algorithm.preset=distill")


def test_a_critic_is_trained_too() -> None:
    config = run(QWEN_05, "learner.algorithm.preset=ppo")
    extra = 896 * 896 + 896 + 896 + 1
    trained = LearnerSizes.of(config.learner, config.model, shape_of(config.model)).T
    assert trained == P_05 + extra


def test_without_checkpointing_every_layer_is_kept() -> None:
    def activations(checkpointing: str) -> float:
        plan = plan_of(QWEN_15, f"learner.gradient_checkpointing={checkpointing}")
        return held(plan, "learner", "backward")["activations"]

    assert activations("false") > 8192 * 28 * 111_616 > 8 * activations("true")


def test_the_planned_share_holds_what_is_wanted_and_no_more() -> None:
    config = run(QWEN_05)
    planned = planned_fraction(config, shape_of(config.model), 24)
    forward = 8192 * 2 * (2 * 896 + 3 * 4864) + 128 * 151_936 * 14
    wanted = 2 * P_05 + forward + 512 * MIB + 128 * 1280 * 12_288 + 0.05 * 24 * GIB
    assert planned.value == pytest.approx(wanted / (24 * GIB), abs=0.01) and planned.value >= wanted / (24 * GIB)
    assert "128 completions of full length need" in planned.reason


def test_the_planned_share_leaves_the_learner_its_room() -> None:
    config = run(QWEN_17, OFFLOAD, "learner.algorithm.kl_beta=0", "rollout.max_concurrent_completions=512")
    share = planned_fraction(config, shape_of(config.model), 24).value
    embedding = 151_936 * 2048
    learner = 800 * MIB + 2 * P_17 + 2 * embedding
    left = 0.95 * 24 * GIB - learner - 800 * MIB - 3 * 2 * embedding
    assert left / (24 * GIB) - 0.01 <= share <= left / (24 * GIB)
    assert memory_plan(
        run(QWEN_17, OFFLOAD, "learner.algorithm.kl_beta=0", f"rollout.gpu_memory_fraction={share}"),
        shape_of(config.model),
        CARD,
    ).fits


def test_a_share_that_the_recipe_leaves_open_is_the_planned_one() -> None:
    config = run(QWEN_05)
    left_open = config.model_copy(update={"rollout": config.rollout.model_copy(update={"gpu_memory_fraction": None})})
    shape = shape_of(config.model)
    assert memory_plan(left_open, shape, CARD).fraction == planned_fraction(config, shape, 24)


def test_gpus_have_names_and_sizes() -> None:
    assert (gpu_model("RTX-4090").gib, gpu_model("A100-80").gib, gpu_model("47.5").gib) == (
        GPUS["4090"],
        GPUS["a100-80"],
        47.5,
    )
    for wrong in ("5000x", "nan", "-3", "0", "inf", "", "4080", "3060"):
        with pytest.raises(ConfigError, match=r"neither a card.s size in GiB.*4090"):
            gpu_model(wrong)


def test_the_command_prints_terms_verdict_and_advice(capsys) -> None:
    assert main(["plan", "countdown-4090", "--gpu", "4090"]) == 0
    fitting = capsys.readouterr().out
    assert "optimizer moments" in fitting and "completions of full length" in fitting and "\nfits" in fitting
    assert main(["plan", "countdown-4090", QWEN_3, "--gpu", "24"]) == 0
    assert "what to change" in capsys.readouterr().out


def test_a_run_on_cores_has_no_plan_for_a_gpu(capsys) -> None:
    assert main(["plan", "countdown-tiny", "placement.mode=cpu", "--gpu", "4090"]) == 2
    assert "placement.mode=colocated" in capsys.readouterr().err


def test_without_a_config_it_is_said_how_to_give_one(tmp_path, capsys) -> None:
    assert main(["plan", "countdown-4090", f"model.path={tmp_path / 'nowhere'}", "--gpu", "4090"]) == 2
    assert "set model.path to a folder that holds the model's config.json" in capsys.readouterr().err
