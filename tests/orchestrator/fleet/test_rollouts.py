"""Who is given which prompts, and when nobody is given any more."""

from types import SimpleNamespace

import pytest

from orchestrator.fleet.rollouts import RolloutStream
from rollout.config import RolloutConfig, SamplingConfig
from rollout.engine.step_loop import EngineStoppedError
from rollout.types.packed import PackedGroup
from rollout.types.sampling import SamplingRequest
from rollout.weights.staging import UnpublishedError


class FakeGenerator:
    """Remembers what it was asked for."""

    def __init__(self) -> None:
        self.asked: list[list[str]] = []
        self.generate = SimpleNamespace(remote=self._generate)

    def _generate(self, request):
        self.asked.append([prompt.id for prompt in request.prompts])
        return f"stream {id(self)} {len(self.asked)}"


class FakeGenerators:
    restarts = 0

    def __init__(self, count: int) -> None:
        self.serving = {f"generator-{index}": FakeGenerator() for index in range(count)}
        self.lost: list[str] = []

    def refs(self):
        return []

    def lose(self, name, reason):
        self.lost.append(name)
        del self.serving[name]


class FakePool:
    is_full, num_pending, restarts, peak_gib = False, 0, 0, 0.0

    def refs(self):
        return ["a reward worker"]

    def submit(self, *groups):
        assert not groups, "nothing was sampled"


def request(first: int, count: int, temperature: float = 1.0) -> SamplingRequest:
    prompts = tuple(SimpleNamespace(id=f"train/{number}") for number in range(first, first + count))
    return SamplingRequest(prompts, SamplingConfig(temperature=temperature), group_size=4, seed=0)


def names(first: int, *more: int) -> list[str]:
    return [f"train/{number}" for number in (first, *more)]


@pytest.fixture
def generators() -> FakeGenerators:
    return FakeGenerators(2)


@pytest.fixture
def pool() -> FakePool:
    return FakePool()


@pytest.fixture
def stream(generators, pool) -> RolloutStream:
    return RolloutStream(generators, pool, RolloutConfig(), serve_restarted=lambda: None)


def test_prompts_are_assigned_in_turn_and_then_to_whoever_has_fewest(stream, generators) -> None:
    first, second = generators.serving.values()
    stream.submit(request(0, 5))
    assert (first.asked, second.asked) == ([names(0, 2, 4)], [names(1, 3)])
    stream.submit(request(5, 3))
    assert (first.asked[1:], second.asked[1:]) == ([names(6)], [names(5, 7)])


def test_prompts_of_one_generator_are_one_call_unless_they_are_sampled_otherwise(stream, generators) -> None:
    first = generators.serving["generator-0"]
    del generators.serving["generator-1"]
    waiting, generators.serving = generators.serving, {}
    stream.submit(request(0, 2))
    stream.submit(request(2, 1))
    stream.submit(request(3, 1, temperature=0.5))
    generators.serving = waiting
    stream.submit(request(4, 1))
    assert first.asked == [names(0, 1, 2), names(3), names(4)]


def test_what_a_lost_generator_had_goes_to_the_others_in_its_order(stream, generators) -> None:
    second = generators.serving["generator-1"]
    stream.submit(request(0, 5))
    stream.lose("generator-0", "it died")
    assert generators.lost == ["generator-0"]
    assert second.asked == [names(1, 3), names(0, 2, 4)]


def test_whose_weights_were_dropped_in_a_publish_is_not_lost(stream, generators, monkeypatch) -> None:
    """The publish tries again. When its prompts are assigned again it has a whole version, or the publish lost it."""
    first, second = generators.serving.values()
    stream.submit(request(0, 4))

    def fail(*_):
        raise UnpublishedError("a publish failed half way")

    monkeypatch.setattr("orchestrator.fleet.rollouts.ray.get", fail)
    monkeypatch.setattr("orchestrator.fleet.rollouts.result_of", fail)
    stream._take([("generator-0", "its error")])
    stream._hand_out()
    assert generators.lost == [] and [*generators.serving] == ["generator-0", "generator-1"]
    assert (first.asked, second.asked) == ([names(0, 2), names(0, 2)], [names(1, 3)])


class Stream:
    """References that have arrived; it is ready once more at its end, as Ray's may be."""

    def __init__(self, *references: str) -> None:
        self.left = [*references]

    def next_ready(self) -> bool:
        return True

    def __next__(self):
        if not self.left:
            raise StopIteration
        return self.left.pop(0)


def test_all_that_has_arrived_is_taken_in_one_look_also_of_a_stream_that_ends_there(
    stream, generators, pool, monkeypatch
) -> None:
    graded: list[tuple[str, str]] = []
    pool.submit = lambda *groups: graded.extend((group.prompt.id, group.reference) for group in groups)
    pool.poll = list
    stream._generators.collect_started = lambda: None
    stream.submit(request(0, 4))
    ended, other = Stream("a train/0", "b train/2"), Stream("c train/1")
    stream._streams = {ended: "generator-0", other: "generator-1"}
    packed = lambda reference: PackedGroup(reference[2:], (), None)  # noqa: E731
    monkeypatch.setattr("orchestrator.fleet.rollouts.ray.get", lambda found, timeout: [*map(packed, found)])
    monkeypatch.setattr("orchestrator.fleet.rollouts.Heartbeats.hanging", lambda *_: {})
    stream.advance([ended, other])
    assert graded == [("train/0", "a train/0"), ("train/2", "b train/2"), ("train/1", "c train/1")]
    assert not stream._streams and [*stream._in_flight["generator-1"]] == ["train/3"]


def test_what_arrived_before_a_generator_failed_is_kept_and_nothing_after_it(
    stream, generators, pool, monkeypatch
) -> None:
    def found(references, *_, **__):
        if isinstance(references, list) or references == "broken":
            raise EngineStoppedError("it failed")
        return PackedGroup(references, (), None)

    graded: list[str] = []
    pool.submit = lambda *groups: graded.extend(group.prompt.id for group in groups)
    stream.submit(request(0, 6))
    monkeypatch.setattr("orchestrator.fleet.rollouts.ray.get", found)
    monkeypatch.setattr("orchestrator.fleet.rollouts.result_of", found)
    stream._take([("generator-0", name) for name in ("train/0", "broken", "train/2")] + [("generator-1", "train/1")])
    assert graded == ["train/0", "train/1"] and generators.lost == ["generator-0"]
    assert generators.serving["generator-1"].asked == [names(1, 3, 5), names(2, 4)]


def test_prompts_wait_while_there_is_nobody(stream, generators) -> None:
    stream.lose("generator-0", "it died")
    stream.lose("generator-1", "it died")
    stream.submit(request(0, 2))
    late = generators.serving["generator-1"] = FakeGenerator()
    stream.submit(request(2, 1))
    assert late.asked == [names(0, 1, 2)]


def test_a_pool_that_is_behind_is_given_nothing_more(stream, pool) -> None:
    stream.submit(request(0, 2))
    assert len(stream.refs()) == 3
    pool.is_full = True
    assert stream.refs() == ["a reward worker"], "finished groups wait with the generators"


def test_a_step_is_measured_without_the_evaluation_before_it(stream, monkeypatch) -> None:
    now = 100.0
    monkeypatch.setattr("orchestrator.fleet.rollouts.time.monotonic", lambda: now)
    fetched = SimpleNamespace(unpack=lambda: SimpleNamespace(scored=lambda rewards: "fetched"))
    monkeypatch.setattr("orchestrator.fleet.rollouts.ray.get", lambda found: [fetched] * len(found))
    stream.submit = lambda request: None
    group = lambda prompt: SimpleNamespace(num_completion_tokens=100, reference=None, rewards=())  # noqa: E731
    asked = request(0, 3).prompts
    stream._scored = {prompt.id: group(prompt) for prompt in asked}
    stream._sampled = dict(zip([prompt.id for prompt in asked], [(0.0, 10.0), (10.0, 90.0), (0.0, 20.0)], strict=True))
    stream.gather(asked[:1])
    assert stream.metrics()["rollout/tokens_per_s"] == 10.0
    assert stream.collect(SimpleNamespace(prompts=asked[1:2])) == ["fetched"]
    stream.gather(asked[2:])
    metrics = stream.metrics()
    assert metrics["rollout/tokens_per_s"] == 10.0 and metrics["time/reward_wait_s"] == 0.0
    assert stream.metrics()["rollout/tokens_per_s"] == 0.0
