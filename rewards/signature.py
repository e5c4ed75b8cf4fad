"""Read off a reward function's signature what it is called with. Standard library only.

A function of one completion takes ``(text, answer)``; one of a whole group ``(texts, answer)``, or, as in TRL, columns
by keyword: ``(prompts, completions, completion_ids, ...)``. Any of them may be ``async def``.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal, NamedTuple

from rollout.types.names import nearest

COLUMNS = ("prompts", "completions", "completion_ids", "completions_ids")
"""Columns that each group has, beside the entries of its answer. TRL's documentation spells the last one both ways."""
OFFERED = ("prompt", "log_metric", "log_extra")
"""What a function of texts is given when it names it: the prompt's text, and what to log with."""
UNKNOWN_HERE = ("trainer_state", "environments")
"""What TRL gives to functions and no worker has: a reward that depends on the step would not be the same again."""

FORMS = "(text, answer), (texts, answer) of a whole group, or (completions, **columns), its parameters by keyword"
"""What a function may look like."""


class SignatureError(TypeError):
    """A function does not exist, or cannot be called with what it would be given. The message says what to do."""


class Kind(NamedTuple):
    """How a function is called."""

    takes: Literal["completion", "group", "columns"]
    """One text; the texts of a group; the columns of a group, as in TRL."""
    is_async: bool = False
    needs: tuple[str, ...] = ()
    """Columns without which it cannot be called, beside those that each group has; a parameter may stand for one."""

    @property
    def is_whole(self) -> bool:
        """Whether it is called once for a group, and returns a value for each completion."""
        return self.takes != "completion"


def kind_of(function: Callable[..., Any]) -> Kind:
    """Return how ``function`` is called. Without a signature it is called on one completion."""
    is_async = inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(type(function).__call__)
    parameters = list(parameters_of(function).values())
    asked = {each.name for each in parameters if each.default is each.empty or each is parameters[0]}
    takes_only_keywords = parameters and all(each.kind is each.VAR_KEYWORD for each in parameters)
    if asked & {*COLUMNS} or takes_only_keywords:
        named = [each.name for each in parameters if each.kind in (each.POSITIONAL_OR_KEYWORD, each.KEYWORD_ONLY)]
        needs = tuple(name for name in named if name in asked and name not in {*COLUMNS, *OFFERED})
        return Kind("columns", is_async, needs)
    return Kind("group" if parameters and parameters[0].name == "texts" else "completion", is_async)


def signature_of(function: Callable[..., Any]) -> inspect.Signature | None:
    """Return the signature; None for a function in C that does not say."""
    try:
        return inspect.signature(function)
    except (ValueError, TypeError):
        return None


def parameters_of(function: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    """Return the parameters by name; none for a function in C that does not say."""
    signature = signature_of(function)
    return {} if signature is None else signature.parameters


class Keywords(NamedTuple):
    """What a function can be given by keyword, beside its text and answer."""

    named: frozenset[str]
    takes_any: bool
    """Whether it has ``**kwargs``."""
    required: tuple[str, ...]


def keywords_of(function: Callable[..., Any], kind: Kind) -> Keywords:
    """Return what the function can be given by keyword."""
    parameters = list(parameters_of(function).values())[0 if kind.takes == "columns" else 2 :]
    own = [each for each in parameters if each.kind in (each.POSITIONAL_OR_KEYWORD, each.KEYWORD_ONLY)]
    return Keywords(
        frozenset(each.name for each in own),
        any(each.kind is each.VAR_KEYWORD for each in parameters),
        tuple(each.name for each in own if each.default is each.empty),
    )


def check_signature(where: str, path: str, given: Iterable[str], function: Callable[..., Any]) -> None:
    """Raise SignatureError, with the nearest right name, unless the recipe's parameters fit.

    Args:
        where: the recipe's key of the parameters, such as ``rewards.parameters.style``.
        path: the function's ``module:function``.
        given: the names of the parameters that the recipe sets.
    """
    kind = kind_of(function)
    keywords = keywords_of(function, kind)
    if kind.takes == "columns" and (unknown := sorted({*UNKNOWN_HERE} & {*keywords.required})):
        raise SignatureError(f"{path} asks for {unknown[0]}, which TRL has and no reward worker: leave it out")
    signature = signature_of(function)
    if signature is None:
        return
    for name in given:
        if name not in keywords.named and not keywords.takes_any:
            raise SignatureError(f"{where}.{name}: {path} has no such parameter; {nearest(name, keywords.named)}")
    if kind.takes == "columns":  # what it lacks may be a column, which only the prompts know
        given = {*given, *keywords.named}
    else:
        for name in keywords.required:
            if name not in {*given, *OFFERED}:
                raise SignatureError(f"{path} needs its parameter {name}: set {where}.{name}")
    texts = () if kind.takes == "columns" else ("text", "answer")
    try:
        signature.bind(*texts, **dict.fromkeys({*given, *(keywords.named & {*OFFERED})}))
    except TypeError as error:
        raise SignatureError(f"{path}{signature} cannot be called: {error}; write it as {FORMS}") from None
