"""The generation engine on real vLLM: logprobs, seeds, versions, and weights that arrive between decoding steps."""

import gc
import os
import threading
import time
import weakref
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from rollout.actor import environment
from rollout.config import RolloutConfig, SamplingConfig
from rollout.types.completions import Group
from rollout.types.prompts import Prompt
from rollout.types.publishing import WeightBucket
from rollout.types.sampling import EngineSpec, SamplingRequest
from rollout.weights.staging import StagingError, UnpublishedError

pytestmark = pytest.mark.slow
CONFIG = RolloutConfig(max_concurrent_completions=64)
SAMPLING = SamplingConfig(temperature=0.7, max_completion_tokens=24)


@pytest.fixture(scope="module")
def policy(tiny_model: Path):
    """The Hugging Face model whose weights the engine is to run; tests change it."""
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)


@pytest.fixture(scope="module")
def engine(tiny_model: Path):
    os.environ.update(environment(CONFIG))
    from rollout.engine.engine import Engine

    started = Engine(EngineSpec(str(tiny_model), "float32", 200, load_weights=False), CONFIG, lambda ids: f"{len(ids)}")
    yield started
    started.close()


@pytest.fixture
def published(engine, policy):
    """The engine, running the policy's present weights as version 0."""
    update_weights(engine, [bucket(policy)], version=0)
    return engine


def bucket(policy) -> WeightBucket:
    state = {name: tensor.numpy().copy() for name, tensor in policy.state_dict().items() if name != "lm_head.weight"}
    return WeightBucket.of(tuple(state), ("float32",) * len(state), tuple(state.values()))


def update_weights(engine, buckets: list[WeightBucket], version: int) -> int:
    """Stage and commit at once."""
    attempt_id = time.monotonic_ns()
    engine.stage(attempt_id, version, buckets)
    return engine.commit(attempt_id)


def prompts(count: int, length: int = 5) -> tuple[Prompt, ...]:
    rng = np.random.default_rng(0)
    return tuple(
        Prompt(f"train/{index:06d}", rng.integers(2, 60, length).astype(np.int32), "", "countdown", {})
        for index in range(count)
    )


def drawn(groups: list[Group]) -> list[list[int]]:
    return [completion.token_ids.tolist() for group in groups for completion in group.completions]


def generate(
    engine, count: int = 6, group_size: int = 4, seed: int = 0, sampling: SamplingConfig = SAMPLING
) -> list[Group]:
    return sorted(
        engine.generate(SamplingRequest(prompts(count), sampling, group_size, seed)), key=lambda group: group.prompt.id
    )


@torch.no_grad()
def largest_gap(policy, groups: list[Group], temperature: float) -> float:
    """Between the rollout logprobs and Hugging Face's own, computed completion by completion, in nats."""
    gaps = []
    for group in groups:
        for completion in group.completions:
            start = len(group.prompt.token_ids)
            ids = torch.tensor(np.concatenate([group.prompt.token_ids, completion.token_ids])).long()
            logits = policy(ids[None]).logits[0, start - 1 : -1].double() / temperature
            expected = logits.log_softmax(-1).gather(1, ids[start:, None])[:, 0]
            gaps.append((expected - torch.tensor(completion.rollout_logprobs)).abs().max().item())
    return max(gaps)


def perturb(policy, scale: float) -> None:
    generator = torch.Generator().manual_seed(int(scale * 1e6))
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.add_(scale * torch.randn(parameter.shape, generator=generator))


def test_an_engine_without_weights_refuses_prompts(engine) -> None:
    if engine.heartbeat().policy_version is not None:
        pytest.fail("this test must run first: it wants the engine as it starts")
    with pytest.raises(UnpublishedError, match="publish before generating"):
        generate(engine)


def test_rollout_logprobs_are_those_of_the_sampling_distribution(published, policy) -> None:
    groups = generate(published)
    assert [len(group.completions) for group in groups] == [4] * 6
    assert largest_gap(policy, groups, SAMPLING.temperature) < 1e-5
    completion = groups[0].completions[0]
    assert completion.text == f"{completion.num_tokens}"
    assert completion.policy_versions == (0,)


def test_the_same_seed_gives_the_same_completions_and_another_does_not(published) -> None:
    def sampled(seed):
        return [
            (tuple(completion.token_ids), tuple(completion.rollout_logprobs))
            for group in generate(published, seed=seed)
            for completion in group.completions
        ]

    assert sampled(7) == sampled(7)
    assert sampled(7) != sampled(8)
    assert len(set(sampled(7))) > 12  # completions of one prompt differ


def test_completions_do_not_depend_on_what_else_is_in_the_batch(published) -> None:
    alone = next(published.generate(SamplingRequest(prompts(1), SAMPLING, 4, 0)))
    together, *_ = generate(published, count=10)
    assert [c.token_ids.tolist() for c in alone.completions] == [c.token_ids.tolist() for c in together.completions]


def test_new_weights_are_used_and_the_tied_lm_head_with_them(published, policy) -> None:
    perturb(policy, 0.03)
    assert update_weights(published, [bucket(policy)], version=1) == 1
    groups = generate(published)
    assert largest_gap(policy, groups, SAMPLING.temperature) < 1e-5
    assert {completion.policy_versions for group in groups for completion in group.completions} == {(1,)}


def test_weights_may_come_in_several_buckets(published, policy) -> None:
    perturb(policy, 0.02)
    whole = bucket(policy)
    parts = [
        WeightBucket.of(
            whole.names[start : start + 7], whole.dtypes[start : start + 7], whole.arrays[start : start + 7]
        )
        for start in range(0, len(whole.names), 7)
    ]
    update_weights(published, parts, version=2)
    assert largest_gap(policy, generate(published), SAMPLING.temperature) < 1e-5


def test_a_stale_lm_head_is_visible_in_the_logprobs(published, policy, monkeypatch) -> None:
    monkeypatch.setattr("rollout.weights.object_store.rebuild_tied_lm_head", lambda model: None)
    perturb(policy, 0.03)
    update_weights(published, [bucket(policy)], version=3)
    assert largest_gap(policy, generate(published), SAMPLING.temperature) > 0.05
    monkeypatch.undo()
    update_weights(published, [bucket(policy)], version=4)
    assert largest_gap(policy, generate(published), SAMPLING.temperature) < 1e-5


def test_a_publish_in_the_middle_of_generation_is_recorded_in_the_completions(published, policy) -> None:
    long = SamplingConfig(temperature=2.0, max_completion_tokens=56)
    groups: list[Group] = []
    reader = threading.Thread(target=lambda: groups.extend(generate(published, 16, 4, sampling=long)))
    before = published.heartbeat().policy_version
    reader.start()
    time.sleep(0.15)
    update_weights(published, [bucket(policy)], version=5)
    reader.join()
    versions = {completion.policy_versions for group in groups for completion in group.completions}
    assert (before, 5) in versions
    assert versions <= {(before,), (before, 5), (5,)}


def test_a_prefix_that_old_weights_read_is_read_again_by_new_ones(published, policy) -> None:
    """Also while completions are on their way, when vLLM cannot empty its cache. Its block is 128 tokens on the CPU."""
    (prompt,) = prompts(1, length=140)
    long = SamplingConfig(temperature=2.0, max_completion_tokens=56)
    reader = threading.Thread(target=lambda: list(published.generate(SamplingRequest((prompt,), long, 16, 0))))
    steps = published.heartbeat().decoding_steps
    reader.start()
    while published.heartbeat().decoding_steps < steps + 2:
        time.sleep(0.001)
    perturb(policy, 0.03)
    update_weights(published, [bucket(policy)], version=6)
    assert published.heartbeat().num_unfinished == 1
    groups = list(published.generate(SamplingRequest((replace(prompt, id="train/000001"),), SAMPLING, 4, 0)))
    reader.join()
    assert largest_gap(policy, groups, SAMPLING.temperature) < 1e-5


def test_weights_that_are_no_whole_version_leave_the_engine_as_it_was(published, policy) -> None:
    before = drawn(generate(published))
    perturb(policy, 0.01)
    whole = bucket(policy)
    for part in (
        WeightBucket.of(whole.names[:-1], whole.dtypes[:-1], whole.arrays[:-1]),
        WeightBucket(whole.names, whole.dtypes, whole.arrays, whole.checksum + 1),
    ):
        with pytest.raises(StagingError, match=r"they lack model\.norm\.weight|arrived damaged"):
            update_weights(published, [part], version=6)
    assert published.heartbeat().policy_version == 0
    assert drawn(generate(published)) == before


def test_staged_weights_change_nothing_until_they_are_committed(published, policy) -> None:
    before = drawn(generate(published))
    perturb(policy, 0.02)
    attempt_id = time.monotonic_ns()
    published.stage(attempt_id, 6, [bucket(policy)])
    assert drawn(generate(published)) == before
    assert published.commit(attempt_id) == 6
    assert largest_gap(policy, generate(published), SAMPLING.temperature) < 1e-5


def test_weights_are_copied_out_of_what_brought_them(published, policy) -> None:
    """Ray's object store, whose arrays are read-only, and are gone when the publish is over."""
    perturb(policy, 0.02)
    brought = bucket(policy)
    for array in brought.arrays:
        array.flags.writeable = False
    update_weights(published, [brought], version=6)
    for array in brought.arrays:
        array.flags.writeable = True
        array[...] = 0.0
    assert largest_gap(policy, generate(published), SAMPLING.temperature) < 1e-5
    arrays = [weakref.ref(array) for array in brought.arrays]
    del brought, array
    gc.collect()
    assert [each() for each in arrays if each() is not None] == []


def test_a_load_that_fails_half_way_is_never_sampled_with_and_the_next_one_is_whole(
    published, policy, monkeypatch
) -> None:
    from rollout.engine.engine import HALF_LOADED
    from rollout.weights.object_store import ArrayWeightTransferEngine

    whole = bucket(policy)
    # A layer's q is in, its k and v are not: vLLM fuses the three, and would go on counting there the next time.
    begun = whole.names.index("model.layers.1.self_attn.q_proj.weight") + 1
    parts = [
        WeightBucket.of(whole.names[part], whole.dtypes[part], whole.arrays[part])
        for part in (slice(begun), slice(begun, None))
    ]
    receive = ArrayWeightTransferEngine.receive_weights

    def receive_first(self, info) -> None:
        if info.bucket is not parts[0]:
            raise MemoryError("no room for the second bucket")
        receive(self, info)

    monkeypatch.setattr(ArrayWeightTransferEngine, "receive_weights", receive_first)
    long = SamplingConfig(temperature=2.0, max_completion_tokens=56)
    errors: list[Exception] = []

    def read() -> None:
        try:
            generate(published, 16, 4, sampling=long)
        except UnpublishedError as error:
            errors.append(error)

    reader = threading.Thread(target=read)
    reader.start()
    while not published.heartbeat().num_unfinished:
        time.sleep(0.001)
    with pytest.raises(MemoryError, match="second bucket"):
        update_weights(published, parts, version=6)
    reader.join(timeout=30)
    assert [str(error) for error in errors] == [str(UnpublishedError(HALF_LOADED))]
    assert published.heartbeat().policy_version is None
    with pytest.raises(UnpublishedError, match="publish before generating"):
        generate(published, 1)
    monkeypatch.undo()
    perturb(policy, 0.03)
    update_weights(published, [bucket(policy)], version=7)
    groups = generate(published)
    assert largest_gap(policy, groups, SAMPLING.temperature) < 1e-5
    assert {completion.policy_versions for group in groups for completion in group.completions} == {(7,)}


def test_a_prompt_that_does_not_fit_is_refused_with_its_id_and_nothing_is_sampled(published) -> None:
    from rollout.engine.engine import PromptTooLongError

    long = [*prompts(1), Prompt("train/000099", np.zeros(180, np.int32), "", "countdown", {})]
    with pytest.raises(PromptTooLongError, match=r"prompt train/000099 has 180 tokens.*needs 204.*holds 200"):
        list(published.generate(SamplingRequest(long, SAMPLING, 2, 0)))
    assert len(generate(published, 1)) == 1


def test_completions_end_at_the_end_token_or_the_limit(published, tiny_model) -> None:
    from transformers import AutoTokenizer

    eos = AutoTokenizer.from_pretrained(tiny_model).eos_token_id
    completions = [completion for group in generate(published, 16, 8) for completion in group.completions]
    for completion in completions:
        if completion.is_truncated:
            assert completion.num_tokens == SAMPLING.max_completion_tokens and eos not in completion.token_ids
        else:
            assert completion.token_ids[-1] == eos and eos not in completion.token_ids[:-1]
    assert {completion.is_truncated for completion in completions} == {True, False}


def test_a_streamed_completion_is_the_one_that_is_generated(published, tiny_model, monkeypatch) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    monkeypatch.setattr(published, "_decode", lambda ids: tokenizer.decode(ids.tolist(), skip_special_tokens=True))
    for index, group in enumerate(generate(published, 4, 1)):
        pieces = list(published.stream(prompts(4)[index], SAMPLING, 0))
        assert "".join(pieces) == group.completions[0].text
        assert len(pieces) >= group.completions[0].num_tokens / 2


def test_a_stream_that_is_left_frees_the_engine(published) -> None:
    pieces = published.stream(prompts(1)[0], SamplingConfig(temperature=2.0, max_completion_tokens=56), 0)
    next(pieces)
    pieces.close()
    assert not published._loop.call(lambda engine: engine.has_unfinished_requests())


def test_abandoned_groups_do_not_come_and_their_prompts_can_be_asked_again(published) -> None:
    long = SamplingConfig(temperature=2.0, max_completion_tokens=56)
    expected = generate(published, 8, 4, sampling=long)
    groups: list[Group] = []
    reader = threading.Thread(target=lambda: groups.extend(generate(published, 8, 4, sampling=long)))
    steps = published.heartbeat().decoding_steps
    reader.start()
    while published.heartbeat().decoding_steps < steps + 5:
        time.sleep(0.001)
    assert published.abandon() > 0
    reader.join(timeout=10)
    assert len(groups) < 8
    heartbeat = published.heartbeat()
    assert (heartbeat.num_unfinished, heartbeat.policy_version) == (0, published.heartbeat().policy_version)
    again = generate(published, 8, 4, sampling=long)
    assert drawn(again) == drawn(expected)


def test_greedy_completions_are_the_most_likely_tokens(published, policy) -> None:
    group = generate(published, 1, 1, sampling=SamplingConfig(temperature=0.0, max_completion_tokens=8))[0]
    ids = torch.tensor(group.prompt.token_ids).long()
    for token in group.completions[0].token_ids:
        with torch.no_grad():
            assert int(policy(ids[None]).logits[0, -1].argmax()) == token
        ids = torch.cat([ids, torch.tensor([int(token)])])
