"""Every number in a recipe, by its key: infinity and NaN are refused wherever they do not mean that a limit is off."""

import math
from collections.abc import Iterator
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import pytest
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from orchestrator.config.schema import RunConfig
from rollout.tasks.base import load_task, task_names

WITHOUT_LIMIT = {
    "learner.max_grad_norm",
    "warm_start.max_grad_norm",
    "learner.algorithm.clip_eps_high",
    "learner.algorithm.mismatch_high",
}
"""Where infinity says that nothing is limited."""


def number_fields(model: type[BaseModel], section: str = "") -> Iterator[tuple[str, type[BaseModel], str]]:
    """Yield key, model and field of everything that may hold a number, in this section and those below."""
    for name, field in model.model_fields.items():
        key = f"{section}.{name}".lstrip(".")
        kinds = [*leaves(field.annotation)]
        for inner in kinds:
            if issubclass(inner, BaseModel):
                yield from number_fields(inner, key)
        if {int, float} & {*kinds}:
            yield key, model, name


def leaves(annotation: Any) -> Iterator[type]:
    """Yield the classes that an annotation is made of."""
    origin, inner = get_origin(annotation), get_args(annotation)
    if isinstance(annotation, type) and not inner:
        yield annotation
    elif origin is Annotated:
        yield from leaves(inner[0])
    elif origin in (Union, UnionType, dict, tuple, list):
        for each in inner:
            yield from leaves(each)
    else:
        assert origin is Literal or annotation in (..., Any), annotation


FIELDS = [
    *number_fields(RunConfig),
    *(each for task in task_names() for each in number_fields(load_task(task).SETTINGS, f"prompts.{task}")),
]


def value_around(field: FieldInfo, number: Any) -> Any:
    """Return the number as the field holds it: alone, in a list, or under a name."""
    origins = {get_origin(field.annotation), *map(get_origin, get_args(field.annotation))}
    if dict in origins:
        return {"name": number}
    if tuple in origins:
        return [0.5, number] if get_args(field.annotation)[-1] is not ... else [number]
    return number


def is_accepted(model: type[BaseModel], name: str, number: Any) -> bool:
    """Return whether the field takes the number; mistakes of other fields do not count."""
    try:
        model.model_validate({name: value_around(model.model_fields[name], number)})
    except ValidationError as error:
        return not any(mistake["loc"][:1] in ((), (name,)) for mistake in error.errors())
    return True


def test_all_keys_are_looked_at() -> None:
    keys = {key for key, _, _ in FIELDS}
    assert len(keys) > 110
    some = {
        "learner.learning_rate",
        "learner.adam_betas",
        "prompts.mixture.weight",
        "prompts.curriculum.stages.weights",
    }
    assert some | {"rewards.ensembles.weights", "prompts.reasoning_gym.datasets.weight", *WITHOUT_LIMIT} <= keys


@pytest.mark.parametrize(("key", "model", "name"), FIELDS, ids=[f"{key}" for key, _, _ in FIELDS])
def test_what_is_no_number_is_refused(key: str, model: type[BaseModel], name: str) -> None:
    for number in (math.nan, -math.inf, "nan", "-inf"):
        assert not is_accepted(model, name, number), f"{key} = {number}"
    for number in (math.inf, "inf"):
        assert is_accepted(model, name, number) == (key in WITHOUT_LIMIT), f"{key} = {number}"


def test_the_test_itself_accepts_what_is_right() -> None:
    accepted = {key for key, model, name in FIELDS if any(is_accepted(model, name, number) for number in (0.5, 3, 100))}
    assert {key for key, _, _ in FIELDS} - accepted == {"learner.algorithm.kl_target"}, "which is not for kl_beta = 0"
