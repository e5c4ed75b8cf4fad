"""A run of every recipe for a card, replayed as allocations: none exceeds the card, and nothing is left over."""

import pytest

from benchmarks.cards import ledger
from benchmarks.cards.paper_card import CardFullError, PaperGenerator, PaperLearner
from orchestrator.config.recipe import RECIPES, load
from orchestrator.plan.memory_plan import MARGIN, memory_plan
from orchestrator.plan.model_shapes import shape_of
from rollout.types.memory_terms import ALWAYS, GIB
from tests.support.marks import only_in_test_all
from tests.support.pretrained import gguf_file

CARDS = ledger.gpu_recipes()


@pytest.fixture(autouse=True)
def _calls_are_done_at_once():
    with ledger.calls_done_at_once():
        yield


def replayed(recipe: str) -> list[ledger.Event]:
    config = load(recipe)
    return ledger.replay(config, memory_plan(config, shape_of(config.model), CARDS[recipe]))


def test_every_recipe_is_among_them() -> None:
    """But for one that only learns, so that there is no generator to take turns with, and one with a user's teacher."""
    assert {path.stem for path in RECIPES.glob("*.toml")} - CARDS.keys() == {"sft", "distill-smollm2-135m"}


@pytest.mark.parametrize(
    # A model in a package is slow: its whole file is read.
    "recipe",
    [
        *(name for name in CARDS if "smollm2" not in name),
        *(only_in_test_all(name) for name in CARDS if "smollm2" in name),
    ],
)
def test_no_moment_of_a_run_exceeds_the_card_and_nothing_is_left_over(recipe: str) -> None:
    if "smollm2" in recipe:
        gguf_file()
    config, gpu = load(recipe), CARDS[recipe]
    plan = memory_plan(config, shape_of(config.model), gpu)
    events = replayed(recipe)
    assert [event.name for event in events if not event.is_clean] == []
    assert {"start", "100 steps", "a generator killed in a publish"} <= {event.name for event in events}
    # Nor what the plan says of its phases, whatever happens between them.
    most = max(event.peak_gib for event in events)
    assert most <= max(map(plan.num_bytes, ALWAYS)) / GIB + 1e-6 and most < gpu.gib * (1 - MARGIN)
    assert all(peak < gpu.gib for event in events for peak in event.by_process.values())


def test_a_buffer_that_a_publish_leaves_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """As CUDA IPC leaves it where nobody has opened it."""
    monkeypatch.setattr(PaperGenerator, "do_finish_commit", lambda self, attempt: self.version)
    monkeypatch.setattr(PaperGenerator, "do_drop_weights", lambda self, attempt: None)
    with pytest.raises(CardFullError, match="twice"):
        replayed("countdown-4090")


def test_a_learner_that_keeps_its_cache_leaves_the_generator_no_room_to_wake(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PaperLearner, "release_memory", lambda self: None)
    with pytest.raises(CardFullError, match=r"generator-0: .* takes the card to"):
        replayed("countdown-4090-qwen3-0.6b")


def test_a_generator_that_does_not_sleep_leaves_the_learner_no_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PaperGenerator, "do_sleep", lambda self: None)
    monkeypatch.setattr(PaperGenerator, "do_wake", lambda self: None)

    def start(self: PaperGenerator) -> None:
        self.allocate([*self.only_in(*ALWAYS), *self.only_in("generating")])

    monkeypatch.setattr(PaperGenerator, "start", start)
    with pytest.raises(CardFullError, match="learner: "):
        replayed("countdown-4090-qwen3-1.7b")


def test_a_generator_started_again_needs_its_whole_share_free() -> None:
    """VLLM asks for it before it takes any: a share that the recipe gives too large is refused at once."""
    config = load("countdown-4090-qwen3-1.7b", ["rollout.gpu_memory_fraction=0.98"])
    plan = memory_plan(config, shape_of(config.model), CARDS["countdown-4090"])
    with pytest.raises(CardFullError, match=r"share of 23\.13 GiB is not free"):
        ledger.replay(config, plan)
