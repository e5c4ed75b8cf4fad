"""Problems of the library reasoning_gym: any of its data sets by name, with its settings, or several by weight.

The library makes a problem from the data set's seed and an index. So the order is endless and reproducible; problems
with the same question text are one problem, with any index.

The answer mapping holds what the library's own scorer needs: the data set's name and settings, and the entry's answer
and metadata as JSON holds them, at most 15 kB (rectangle_count). Making the entry again from its index would cost up to
half a second for each group (knight_swap). The entries of all data sets but ARC's score the same after a trip through
JSON; rewards/tasks/reasoning_gym.py fixes ARC's.
"""

from __future__ import annotations

import dataclasses
import json
import random
from collections.abc import Sequence
from typing import Any, Self

from pydantic import BaseModel, Field, field_validator, model_validator

from rollout.tasks.base import DrawnProblems, Problem, WorkedExample
from rollout.types.names import nearest

TEMPLATE = (
    "{question}\nShow your work in <think> </think> tags. And return the final answer in <answer> </answer> tags, "
    "exactly in the form that the question asks for."
)
NATURAL_TEMPLATE = (
    "{question}\nThink step by step, and end with a last line that holds the final answer and nothing else, exactly in "
    "the form that the question asks for."
)
EXAMPLE = WorkedExample(
    fields={"question": "State the final answer to the following arithmetic problem: 6 + 7 - 4 ="},
    completion="6 + 7 = 13. Then 13 - 4 = 9.</think>\n<answer>9</answer>",
)

UNFIT = {
    "composite": "list its data sets in prompts.reasoning_gym.datasets instead, each with a weight",
}
"""Data sets that cannot be asked, and what to do instead."""
OWN_SETTINGS = frozenset({"seed", "size"})
"""Settings of every data set that a recipe may not set: the seed is `prompts.seed`, and problems are endless."""
MAX_INDEX = 2**31
"""Indices are drawn below this."""
SEEDS_NUMPY = "pool_matrix"
"""The data set that seeds numpy with seed + index, which must be within 0 and 2**32 - 1."""
SIZES = {"acre": 5_000, "gsm_symbolic": 100_000, "list_functions": 100_000, "word_ladder": 20_000}
"""Data sets that have no index beyond their size, and their sizes here. acre makes all its entries at once, in 2 s."""
ANSWER_ALONE = frozenset({"chain_sum", "decimal_arithmetic", "decimal_chain_sum", "products"})
"""Data sets whose scorer reads nothing of an entry but its answer, beside those that have the library's common one."""


class DatasetConfig(BaseModel, frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False):
    """One data set of reasoning_gym."""

    name: str
    """Its name in the library, such as `chain_sum`. An unknown one is refused before anything starts."""
    weight: float = Field(default=1.0, gt=0.0, le=1e6)
    """Its share of the problems, relative to the others'."""
    settings: dict[str, Any] = {}
    """Settings of its own, such as `{ min_terms = 3 }`. Those that are not given are the library's."""

    @field_validator("name")
    @classmethod
    def _can_be_asked(cls, name: str) -> str:
        if name in UNFIT:
            raise ValueError(f"{name!r} cannot be asked: {UNFIT[name]}")
        return name

    @field_validator("settings")
    @classmethod
    def _leaves_seed_and_size(cls, settings: dict[str, Any]) -> dict[str, Any]:
        if own := OWN_SETTINGS & set(settings):
            raise ValueError(f"settings has {sorted(own)}: the seed is prompts.seed, and there is no size; remove it")
        try:
            json.dumps(settings, allow_nan=False, default=str)
        except ValueError:
            raise ValueError(f"settings = {settings} holds NaN or infinity: set finite numbers") from None
        return settings


class ReasoningGymConfig(BaseModel, frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False):
    """reasoning_gym: problems made by the library's generators, graded by its own scorers."""

    datasets: tuple[DatasetConfig, ...] = Field(default=(DatasetConfig(name="chain_sum"),), min_length=1)
    """What is asked: `[{ name = "chain_sum" }]`, or several with weights. The same name may come twice, with other
    settings. To give them different wording, or a curriculum, make them entries of `prompts.mixture`."""

    @model_validator(mode="after")
    def _are_different(self) -> Self:
        for position, dataset in enumerate(self.datasets):
            if dataset in self.datasets[:position]:
                raise ValueError(f"datasets lists {dataset.name!r} twice with the same settings: add up the weights")
        return self


SETTINGS = ReasoningGymConfig
TRACES = "rollout.supervised.reasoning_gym"


def fields(config: ReasoningGymConfig) -> tuple[tuple[str, ...], ...]:
    return (("question",),)


def source(config: ReasoningGymConfig, num_held_out: int, seed: int) -> DrawnProblems:
    """Return the problems that `config` describes.

    Raises ValueError for a data set or a setting that the library does not have, and when there are too few problems.
    """
    made = [load_dataset(dataset, seed) for dataset in config.datasets]
    weights = [dataset.weight for dataset in config.datasets]

    def draw(rng: random.Random) -> Problem:
        position = rng.choices(range(len(made)), weights)[0]
        dataset = config.datasets[position]
        return problem(dataset, made[position][rng.randrange(SIZES.get(dataset.name, MAX_INDEX))])

    return DrawnProblems(
        draw, num_held_out, seed, widen="widen prompts.reasoning_gym.datasets' settings, or add a data set"
    )


def read_question(question: str, answer: str | None, config: ReasoningGymConfig) -> Problem:
    """Return a question that a user typed. It can be checked where all data sets' scorers need no more than an answer.

    Otherwise the answer goes without what a scorer needs, and cannot be graded.
    """
    reference: dict[str, Any] = {} if answer is None else {"answer": answer.strip()}
    if reference and only_needs_the_answer(config.datasets):
        dataset = config.datasets[0]
        reference |= {"dataset": dataset.name, "settings": dataset.settings, "metadata": {}}
    return Problem(fields={"question": question}, answer=reference, key=question)


def only_needs_the_answer(datasets: Sequence[DatasetConfig]) -> bool:
    """Return whether all data sets have the same scorer, and it reads nothing of an entry but its answer."""
    from reasoning_gym.dataset import ProceduralDataset

    scorers = {type(load_dataset(dataset, 0)).score_answer for dataset in datasets}
    return len(scorers) == 1 and (datasets[0].name in ANSWER_ALONE or scorers == {ProceduralDataset.score_answer})


def problem(dataset: DatasetConfig, entry: dict[str, Any]) -> Problem:
    """Return the problem of one of the library's entries."""
    return Problem(
        fields={"question": entry["question"]},
        answer={
            "answer": entry["answer"],
            "dataset": dataset.name,
            "settings": dataset.settings,
            "metadata": json.loads(json.dumps(entry["metadata"])),
        },
        key=entry["question"],
        difficulty=dataset.name,
    )


def load_dataset(dataset: DatasetConfig, seed: int) -> Any:
    """Return the library's data set. Raises ValueError, with the nearest name, for a data set or setting it lacks."""
    from reasoning_gym.factory import DATASETS, create_dataset

    if dataset.name not in DATASETS:
        raise ValueError(
            f"reasoning_gym has no data set {dataset.name!r}: {nearest(dataset.name, set(DATASETS) - set(UNFIT))}"
        )
    where = f"prompts.reasoning_gym.datasets: {dataset.name}"
    if dataset.name == SEEDS_NUMPY and not 0 <= seed <= 2**32 - MAX_INDEX:
        raise ValueError(
            f"prompts.seed = {seed}: {where} takes seeds from 0 to {2**32 - MAX_INDEX} alone; set it to one of these, "
            "or leave that data set out"
        )
    known = {field.name for field in dataclasses.fields(DATASETS[dataset.name][1])} - OWN_SETTINGS
    for key in dataset.settings:
        if key not in known:
            raise ValueError(f"{where} has no setting {key!r}: {nearest(key, known)}")
    try:
        size = {"size": SIZES[dataset.name]} if dataset.name in SIZES else {}
        return create_dataset(dataset.name, seed=seed, **size, **dataset.settings)
    except (AssertionError, TypeError, ValueError) as error:
        raise ValueError(f"{where} refuses settings = {dataset.settings}: {error}") from error
