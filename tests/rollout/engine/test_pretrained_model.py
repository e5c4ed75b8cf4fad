"""A real pretrained model on one engine and one learner, without Ray: it samples, learns, is published and exported."""

import asyncio
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from rich.console import Console

from learner.config import LearnerConfig, ModelConfig
from learner.parity import ParityError
from orchestrator.base_model import load_tokenizer
from orchestrator.config.recipe import load
from orchestrator.evaluate.models import NamedModel, named_models
from rewards.registry import functions_of
from rewards.score import compose
from rewards.subject import Subject
from rewards.workers.processes import GradeTask
from rewards.workers.worker import RewardWorker
from rollout.actor import environment
from rollout.config import RolloutConfig, SamplingConfig
from rollout.prompts.decoding import completion_decoder
from rollout.prompts.stream import PromptStream
from rollout.prompts.template import Template
from rollout.tasks.base import Problem
from rollout.types.completions import Group, Reward
from rollout.types.prompts import Prompt
from rollout.types.publishing import WeightBucket
from rollout.types.sampling import EngineSpec, SamplingRequest
from tests.support.pretrained import END, END_ID
from tests.support.tiny import free_port

pytestmark = [pytest.mark.slow, pytest.mark.alone]

CONFIG = load("smollm2-135m")
ENGINE = RolloutConfig(max_concurrent_completions=32, threads_per_generator=2)
MODEL = ModelConfig(path="of the fixture", dtype="float32")
GAP = 1e-4
"""Nats a token between sampler and learner in float32, 30 layers deep: a stale weight makes a hundred times as much."""


@pytest.fixture(scope="module")
def tokenizer(pretrained: Path):
    return load_tokenizer(str(pretrained))


@pytest.fixture(scope="module")
def engine(pretrained: Path, tokenizer):
    """An engine as in training: it has the model's config, and no weights until the first publish."""
    threads = torch.get_num_threads()
    os.environ.update(environment(ENGINE))
    torch.set_num_threads(ENGINE.threads_per_generator)  # which was read from OMP_NUM_THREADS when torch was imported
    from deepspeed.comm import comm

    if comm.cdb is not None and not torch.distributed.is_initialized():
        pytest.skip("DeepSpeed keeps process groups that an engine of an earlier test has ended: run this file alone")
    from learner.backend.rank import Rank, join_ranks
    from rollout.engine.engine import Engine

    # Before vLLM makes a process group, of which DeepSpeed knows nothing.
    join_ranks(Rank(master_port=free_port()))
    spec = EngineSpec(str(pretrained), "float32", 160, load_weights=False, reads_text=True)
    started = Engine(spec, ENGINE, completion_decoder(tokenizer))
    yield started
    started.close()
    torch.set_num_threads(threads)


@contextmanager
def learner(folder: Path, learning_rate: float):
    from learner.backend.rank import Rank
    from learner.learner import Learner

    settings = LearnerConfig(learning_rate=learning_rate, zero_stage=0, threads_per_rank=2)
    limits = {"num_steps": 10, "temperature": 1.0, "max_completion_tokens": CONFIG.sampling.max_completion_tokens}
    started = Learner(settings, MODEL, folder, Rank(master_port=free_port()), **limits)
    yield started
    started.close()


def publish(engine, buckets: Sequence[WeightBucket], version: int) -> None:
    attempt = time.monotonic_ns()
    engine.stage(attempt, version, buckets)
    assert engine.commit(attempt) == version


def sampled(
    engine, prompts: Sequence[Prompt], size: int = 4, sampling: SamplingConfig = CONFIG.sampling
) -> list[Group]:
    """Groups with made-up rewards, the same whatever was sampled."""
    groups = sorted(engine.generate(SamplingRequest(tuple(prompts), sampling, size, 0)), key=lambda g: g.prompt.id)
    return [group.scored(tuple(Reward(float(i % 2), ()) for i in range(size))) for group in groups]


@pytest.fixture(scope="module")
def prompts(tokenizer) -> list[Prompt]:
    return PromptStream(CONFIG.prompts, tokenizer).take(2)


@dataclass(frozen=True)
class Trained:
    """Two steps on all the weights, and what they left."""

    gaps: list[float]
    stale: str
    """What the learner said of a publish that brought old weights under a new version."""
    base: list[WeightBucket]
    trained: list[WeightBucket]
    final: Path


def kept(buckets: Iterable[WeightBucket]) -> list[WeightBucket]:
    """The weights as they are now, whatever the next update makes of them."""
    return [WeightBucket.of(each.names, each.dtypes, tuple(array.copy() for array in each.arrays)) for each in buckets]


@pytest.fixture(scope="module")
def trained(engine, pretrained: Path, prompts, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    final = tmp_path_factory.mktemp("trained") / "final"
    with learner(pretrained, 1e-4) as learning:
        base = kept(learning.weight_buckets(2**26))
        publish(engine, base, 0)
        first = learning.update(1, sampled(engine, prompts)).metrics
        publish(engine, list(learning.weight_buckets(2**26)), 1)
        second = learning.update(2, sampled(engine, prompts)).metrics
        ends = kept(learning.weight_buckets(2**26))
        learning.export(final)
        publish(engine, base, 2)
        with pytest.raises(ParityError) as caught:
            learning.update(3, sampled(engine, prompts[:1]))
    return Trained([each["rollout/logprob_gap"] for each in (first, second)], str(caught.value), base, ends, final)


def test_sampler_and_learner_agree_on_what_was_published_and_on_nothing_else(trained: Trained) -> None:
    """The tied head is 49,152 x 576, a fifth of the model: it travels once, as the embedding."""
    assert max(trained.gaps) < GAP
    assert "step 3: learner and sampler logprobs differ" in trained.stale and "versions [2]" in trained.stale


def test_what_is_published_first_is_what_was_converted(trained: Trained, pretrained: Path) -> None:
    from safetensors.torch import load_file

    stored, published = load_file(pretrained / "model.safetensors"), weights_of(trained.base)
    assert published.keys() == stored.keys() and "lm_head.weight" not in published
    assert published["model.embed_tokens.weight"].shape == (49_152, 576)
    assert all(np.array_equal(published[name], weights.numpy()) for name, weights in stored.items())


def weights_of(buckets: Iterable[WeightBucket]) -> dict[str, np.ndarray]:
    return {name: array for each in buckets for name, array in zip(each.names, each.arrays, strict=True)}


def test_a_chat_turn_ends_with_the_models_end_and_tells_the_sum(engine, tokenizer, trained: Trained) -> None:
    publish(engine, trained.base, 3)
    chat = CONFIG.prompts.model_copy(update={"chat": True, "template": "{question}"})
    problem = Problem(fields={"question": "What is 7 + 5?"}, answer={"answer": "12"}, key="")
    prompt = Template(chat, tokenizer).prompt("chat/0", problem)
    (group,) = sampled(engine, [prompt], 1, SamplingConfig(temperature=0.0, max_completion_tokens=48))
    (completion,) = group.completions
    assert "12" in completion.text and completion.finish_reason == "stop"
    assert completion.token_ids[-1] == END_ID and END_ID not in completion.token_ids[:-1]
    assert END not in completion.text


def test_a_stop_text_may_end_within_a_token(engine, tokenizer, prompts, trained: Trained) -> None:
    publish(engine, trained.base, 4)
    completions = [completion for group in sampled(engine, prompts) for completion in group.completions]
    stopped = [completion for completion in completions if "</answer>" in completion.text]
    assert stopped
    for completion in stopped:
        last = tokenizer.decode([int(completion.token_ids[-1])])
        rest = completion.text.partition("</answer>")[2]
        assert completion.finish_reason == "stop" and last.endswith(rest) and len(rest) < len(last)


def test_wild_tokens_are_streamed_as_they_are_generated(engine, prompts, trained: Trained) -> None:
    """At temperature 2 a policy writes all scripts, and parts of characters."""
    wild = SamplingConfig(temperature=2.0, max_completion_tokens=24)
    texts = []
    for group in sampled(engine, prompts, 1, wild):
        texts.append(group.completions[0].text)
        assert "".join(engine.stream(group.prompt, wild, 0)) == texts[-1]
    assert not all(text.isascii() for text in texts)


def test_the_export_is_the_trained_model_and_its_own_tokenizer(trained: Trained, pretrained, tokenizer) -> None:
    from transformers import AutoModelForCausalLM

    found = load_tokenizer(str(trained.final))
    text = "naïve − 7"
    assert found(text)["input_ids"] == tokenizer(text)["input_ids"]
    assert found.chat_template == tokenizer.chat_template
    assert (found.eos_token_id, found.pad_token_id) == (END_ID, END_ID)
    model = AutoModelForCausalLM.from_pretrained(trained.final, dtype=torch.float32)
    assert model.generation_config.eos_token_id == END_ID and model.config.tie_word_embeddings
    assert model.lm_head.weight is model.model.embed_tokens.weight
    weights, before = model.state_dict(), weights_of(trained.base)
    for name, array in weights_of(trained.trained).items():
        assert np.array_equal(weights[name].numpy(), array) and not np.array_equal(before[name], array), name


def test_solve_asks_the_exported_model(engine, trained: Trained, monkeypatch: pytest.MonkeyPatch) -> None:
    from orchestrator.evaluate import solve

    publish(engine, trained.trained, 5)

    @contextmanager
    def running(folder: str, *_: object) -> Iterator[object]:
        assert folder == str(trained.final)
        yield engine

    monkeypatch.setattr(solve, "engine", running)
    console = Console(record=True, width=120, file=open(os.devnull, "w"))  # noqa: SIM115, PTH123
    solve.solve(str(trained.final), "Calculate 20 + 8.", "smollm2-135m", "28", 2, console)
    said = console.export_text()
    assert said.count("Question: Calculate 20 + 8. Write <answer>number</answer>.\nAnswer:") == 2
    assert said.count("right") + said.count("wrong:") == 2


class GradedHere:
    """One engine, and the recipe's grader, in the place of a fleet."""

    def __init__(self, engine) -> None:
        self._engine = engine

    def collect(self, request: SamplingRequest) -> list[Group]:
        groups = {group.prompt.id: group for group in self._engine.generate(request)}
        return asyncio.run(graded([groups[prompt.id] for prompt in request.prompts]))


async def graded(groups: Sequence[Group]) -> list[Group]:
    functions = tuple(functions_of("reasoning_gym", CONFIG.rewards))
    worker = RewardWorker()
    await worker.load(functions)
    done = []
    for group in groups:
        tasks = [GradeTask(functions, Subject((each.text,), group.prompt.answer)) for each in group.completions]
        async for _ in worker.grade(tasks):
            pass
        done.append(group.scored(tuple(compose(functions, task.outcomes, CONFIG.rewards) for task in tasks)))
    await worker.close()
    return done


@pytest.mark.long
def test_eval_compares_it_with_the_base_on_the_same_problems(
    engine, trained: Trained, pretrained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from orchestrator.evaluate import comparison

    @contextmanager
    def running(model: NamedModel, position: int, _: object) -> Iterator[object]:
        publish(engine, trained.trained if model.name == "trained" else trained.base, 6 + position)
        yield SimpleNamespace(rollouts=GradedHere(engine))

    monkeypatch.setattr(comparison, "ray_cluster", lambda **_: nullcontext())
    monkeypatch.setattr(comparison, "running_fleet", running)
    config = load("smollm2-135m", ["prompts.num_held_out=4", "evaluation.completions_per_prompt=2"])
    models = named_models([f"base:{pretrained}", f"trained:{trained.final}"])
    asked = {model.name: comparison.prompts_of(model, config) for model in models}
    found = comparison.compare(models, asked, comparison.with_room_for(asked, config), Console(quiet=True))
    assert [result.model.name for result in found] == ["base", "trained"]
    ids = [[group.prompt.id for group in result.evaluation.groups] for result in found]
    assert ids[0] == ids[1] and len(ids[0]) == 4
    for result in found:
        answered = [
            (completion.text, group.prompt.answer["answer"], reward.value("correctness"))
            for group in result.evaluation.groups
            for completion, reward in zip(group.completions, group.rewards, strict=True)
        ]
        for text, answer, value in answered:
            assert value == float(f"<answer>{answer}</answer>" in text.replace(" ", "")), text
        mean = sum(value for *_, value in answered) / len(answered)
        assert result.evaluation.pass_at[1].mean == pytest.approx(mean)
    assert found[0].difference is None and found[1].difference is not None
