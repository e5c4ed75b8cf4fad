"""A model's parameters, and what its layers keep: by hand, and against the models that transformers builds."""

import json

import pytest

from learner.config import LoraConfig, ModelConfig
from learner.memory import adapter_shapes, layer_bytes
from orchestrator.config.recipe import ConfigError, load
from orchestrator.model_source import PolicyError
from orchestrator.plan.gpu_models import gpu_model
from orchestrator.plan.memory_plan import memory_plan
from orchestrator.plan.model_fits import check_model_fits, check_rotation
from orchestrator.plan.model_shapes import PUBLISHED, check_split, shape_from, shape_of
from rollout.types.model_shape import ModelShape
from tests.support.paths import WARM_START

UNTIED = ModelShape("llama", 64, 3, 4, 2, 16, 160, 500, tie_embeddings=False)


def test_sizes_are_the_published_ones() -> None:
    totals = {name: shape.num_parameters for name, shape in PUBLISHED.items()}
    assert totals == {
        "Qwen/Qwen2.5-0.5B": 494_032_768,
        "Qwen/Qwen2.5-1.5B": 1_543_714_304,
        "Qwen/Qwen2.5-3B": 3_085_938_688,
        "Qwen/Qwen2.5-7B": 7_615_616_512,
        "Qwen/Qwen3-0.6B": 596_049_920,
        "Qwen/Qwen3-1.7B": 1_720_574_976,
    }


def test_the_smallest_is_counted_by_hand() -> None:
    attention = 896 * 896 + 896 + 2 * (896 * 128 + 128) + 896 * 896
    block = attention + 3 * 896 * 4864 + 2 * 896
    assert PUBLISHED["Qwen/Qwen2.5-0.5B"].num_parameters == 151_936 * 896 + 24 * block + 896


def transformers_model(shape: ModelShape, device: str, dtype=None):
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.for_model(
        shape.family,
        hidden_size=shape.hidden_size,
        num_hidden_layers=shape.num_layers,
        num_attention_heads=shape.num_heads,
        num_key_value_heads=shape.num_kv_heads,
        head_dim=shape.head_size,
        intermediate_size=shape.intermediate_size,
        vocab_size=shape.vocab_size,
        tie_word_embeddings=shape.tie_embeddings,
    )
    with torch.device(device):
        return AutoModelForCausalLM.from_config(config, attn_implementation="sdpa", dtype=dtype)


@pytest.mark.parametrize(
    "shape", [*PUBLISHED.values(), UNTIED], ids=lambda shape: f"{shape.family}-{shape.hidden_size}"
)
def test_every_parameter_of_transformers_model_is_counted(shape) -> None:
    model = transformers_model(shape, "meta")
    assert sorted(tuple(parameter.shape) for parameter in model.parameters()) == sorted(shape.tensors)
    assert shape_from(model.config.to_dict(), "model").tensors == shape.tensors


@pytest.mark.parametrize("targets", ['"all-linear"', '["q_proj", "v_proj"]'])
def test_adapters_are_those_that_the_learner_makes(targets) -> None:
    from learner.model.lora import add_adapters

    overrides = [f"model.lora={{rank=8, target_modules={targets}}}", "learner.algorithm.reference=base"]
    config = load("countdown-4090", overrides).model
    shape = PUBLISHED["Qwen/Qwen3-0.6B"]
    model = transformers_model(shape, "meta")
    add_adapters(model, config.lora)
    trained = [tuple(parameter.shape) for parameter in model.parameters() if parameter.requires_grad]
    assert sorted(trained) == sorted(adapter_shapes(shape, config.lora))


@pytest.mark.parametrize("family", ["qwen2", "qwen3"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_layer_keeps_what_autograd_keeps(family, dtype) -> None:
    """Two models that differ by one layer differ by what it saves for its backward pass."""
    import torch

    def saved(num_layers: int) -> int:
        shape = ModelShape(family, 128, num_layers, 4, 2, 32, 384, 50, tie_embeddings=True)
        model = transformers_model(shape, "cpu", getattr(torch, dtype)).base_model
        weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
        kept = {}

        def note(tensor):
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in weights:
                kept[storage.data_ptr()] = (storage.nbytes(), tensor)  # the tensor, lest its address be used again
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            model(input_ids=torch.zeros(2, 64, dtype=torch.long), use_cache=False)
        return sum(num_bytes for num_bytes, _ in kept.values())

    a_token = (saved(3) - saved(2)) / 128
    planned = layer_bytes(
        ModelShape(family, 128, 1, 4, 2, 32, 384, 50, tie_embeddings=True), 2 if dtype == "bfloat16" else 4
    )
    # On the CPU; other attention kernels keep a little more.
    assert a_token <= planned <= 1.1 * a_token


def test_a_config_file_is_all_that_is_needed(tmp_path) -> None:
    shape = PUBLISHED["Qwen/Qwen2.5-1.5B"]
    config = transformers_model(shape, "meta").config.to_dict()
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert shape_of(load("countdown-4090", [f"model.path={tmp_path}"]).model).num_parameters == shape.num_parameters


@pytest.mark.parametrize(("content", "said"), [(b"GGUF", "cannot be read"), (b"PK", "is not a GGUF file")])
def test_a_gguf_file_that_cannot_be_read_is_said_in_one_sentence(content: bytes, said: str, tmp_path) -> None:
    (tmp_path / "a.gguf").write_bytes(content)
    with pytest.raises(ConfigError, match=rf"^model\.path = '.*a\.gguf': .*a\.gguf {said}"):
        shape_of(ModelConfig(path=str(tmp_path / "a.gguf")))


def test_a_model_that_is_built_is_counted_as_it_is_built(tmp_path) -> None:
    from safetensors import safe_open

    from learner.model.build import build_model

    config = load("countdown-tiny").model
    assert config.build is not None
    build_model(config.build, 0, tmp_path)
    with safe_open(tmp_path / "model.safetensors", "pt") as weights:
        shapes = sorted(tuple(weights.get_slice(name).get_shape()) for name in weights.keys())  # noqa: SIM118
    assert shapes == sorted(shape_of(config).tensors)


def test_models_of_other_kinds_are_refused_by_name() -> None:
    with pytest.raises(ConfigError, match=r"model_type 'gemma3'.*qwen2, qwen3, llama, mistral"):
        shape_from({"model_type": "gemma3"}, "google/gemma")


def test_an_adapter_for_a_layer_that_is_not_there_is_refused_with_those_that_are() -> None:
    config = load("countdown-4090", ['model.lora={rank=4, target_modules=["q_proj", "vproj"]}'])
    shape = shape_of(config.model)
    with pytest.raises(ConfigError, match=r"model\.lora\.target_modules names 'vproj'.*q_proj, k_proj"):
        memory_plan(config, shape, gpu_model("4090"))
    assert adapter_shapes(shape, LoraConfig(rank=4, target_modules=("self_attn.q_proj",)))


def test_a_run_refuses_such_adapters_before_anything_starts() -> None:
    lengths = ["sampling.max_completion_tokens=64", "prompts.max_prompt_tokens=64"]
    lora = 'model.lora={rank=4, target_modules=["vproj"]}'
    config = load("countdown-4090", [f"model.path={WARM_START}", lora, "learner.algorithm.reference=base", *lengths])
    with pytest.raises(ConfigError, match=r"names 'vproj'"):
        check_model_fits(config, str(WARM_START))


FACTORS = {"short_factor": [1.0] * 16, "long_factor": [2.0] * 16}


@pytest.mark.parametrize(
    ("rope", "limit"),
    [
        ({"rope_type": "dynamic", "factor": 4.0}, 512),
        ({"rope_type": "longrope", "original_max_position_embeddings": 96, **FACTORS}, 96),
    ],
)
def test_positions_that_depend_on_other_sequences_are_refused(rope: dict, limit: int, tmp_path) -> None:
    settings = json.loads((WARM_START / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(settings | {"rope_parameters": rope | {"rope_theta": 1e4}}))
    lengths = [f"sampling.max_completion_tokens={limit - 32}", "model.build.max_position_embeddings=1024"]
    check_rotation(load("countdown-tiny", [*lengths, "prompts.max_prompt_tokens=32"]), str(tmp_path))
    lengths.append("prompts.max_prompt_tokens=33")
    with pytest.raises(PolicyError, match=rf"beyond {limit} tokens \({rope['rope_type']}\).* take {limit + 1}: lower"):
        check_rotation(load("countdown-tiny", lengths), str(tmp_path))


def test_a_split_that_vllm_refuses_is_refused_by_the_plan() -> None:
    config = load("countdown-4090", ["placement.mode=pods", "rollout.tensor_parallel_size=4"])
    with pytest.raises(ConfigError, match=r"rollout\.tensor_parallel_size = 4 .* 14 attention heads .* one of 1, 2$"):
        memory_plan(config, shape_of(config.model), gpu_model("4090"))


SIZES = {"num_attention_heads": 16, "num_key_value_heads": 4, "intermediate_size": 3072, "vocab_size": 1000}


@pytest.mark.parametrize(
    ("sizes", "ways", "says"),
    [
        ({}, 32, "32 does not divide the 16 attention heads of M: set it to one of 1, 2, 4, 8, 16$"),
        ({"num_key_value_heads": 6, "num_attention_heads": 24}, 4, "neither a divisor nor a multiple of the 6 key-val"),
        (
            {"intermediate_size": 3000},
            16,
            "not divide intermediate_size = 3000 of M: set it to one of 1, 2, 4, 8$",
        ),
        (
            {"num_attention_heads": 12, "num_key_value_heads": 12, "vocab_size": 64},
            3,
            "does not divide the vocabulary, 64",
        ),
    ],
)
def test_vllm_shares_whole_heads_and_equal_parts_only(sizes: dict, ways: int, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        check_split(SIZES | sizes, ways, "M")


def test_key_value_heads_are_shared_or_copied() -> None:
    for ways in (1, 2, 4, 8, 16):
        check_split(SIZES, ways, "M")
    check_split(dict.fromkeys(SIZES), 7, "a model whose config says nothing of it")


def test_a_run_refuses_such_a_split_before_anything_starts() -> None:
    """The tiny model has three heads; its vocabulary of 128 with padding is shared by two at most."""
    ways = ["placement.mode=pods", "rollout.tensor_parallel_size=3"]
    lengths = ["sampling.max_completion_tokens=64", "prompts.max_prompt_tokens=64"]
    config = load("countdown-4090", [f"model.path={WARM_START}", *ways, *lengths])
    with pytest.raises(ConfigError, match=r"tensor_parallel_size = 3 does not divide the vocabulary, 128 with"):
        check_model_fits(config, str(WARM_START))
