"""Find the arguments of a reward function from its signature. Standard library only.

A function for one completion takes ``(text, answer)``. A function for a whole group takes ``(texts, answer)`` or, as in
TRL, columns by keyword: ``(prompts, completions, completion_ids, ...)``. Each of them may be ``async def``.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal, NamedTuple

from rollout.types.names import nearest

COLUMNS = ("prompts", "completions", "completion_ids", "completions_ids")
"""Columns that each group has, in addition to the entries of its answer. TRL's documentation has both spellings of the
last column."""
OFFERED = ("prompt", "log_metric", "log_extra")
"""Optional arguments of a function of texts: the prompt's text, and functions for logging."""
UNKNOWN_HERE = ("trainer_state", "environments")
"""Arguments that TRL passes and workers do not have: a reward that depends on the step could not be reproduced."""

FORMS = "(text, answer), (texts, answer) of a whole group, or (completions, **columns), its parameters by keyword"
"""The possible forms of a function, for messages."""


class SignatureError(TypeError):
    """A function does not exist, or cannot be called with its arguments. The message says what to do."""


class Kind(NamedTuple):
    """How a function is called."""

    takes: Literal["completion", "group", "columns"]
    """One text; the texts of a group; the columns of a group, as in TRL."""
    is_async: bool = False
    needs: tuple[str, ...] = ()
    """Required columns, in addition to those that each group has; a parameter may replace a column."""

    @property
    def is_whole(self) -> bool:
        """Whether it is called once for a group, and returns a value for each completion."""
        return self.takes != "completion"


def kind_of(function: Callable[..., Any]) -> Kind:
    """Return how ``function`` is called. A function without a signature is called with one completion."""
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
    """Return the signature; None for a function in C without one."""
    try:
        return inspect.signature(function)
    except (ValueError, TypeError):
        return None


def parameters_of(function: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    """Return the parameters by name; empty for a function in C without a signature."""
    signature = signature_of(function)
    return {} if signature is None else signature.parameters


class Keywords(NamedTuple):
    """The arguments that a function takes by keyword, in addition to its text and answer."""

    named: frozenset[str]
    takes_any: bool
    """Whether it has ``**kwargs``."""
    required: tuple[str, ...]


def keywords_of(function: Callable[..., Any], kind: Kind) -> Keywords:
    """Return the arguments that the function takes by keyword."""
    parameters = list(parameters_of(function).values())[0 if kind.takes == "columns" else 2 :]
    own = [each for each in parameters if each.kind in (each.POSITIONAL_OR_KEYWORD, each.KEYWORD_ONLY)]
    return Keywords(
        frozenset(each.name for each in own),
        any(each.kind is each.VAR_KEYWORD for each in parameters),
        tuple(each.name for each in own if each.default is each.empty),
    )


def check_signature(where: str, path: str, given: Iterable[str], function: Callable[..., Any]) -> None:
    """Raise SignatureError, with the nearest right name, unless the function takes the recipe's parameters.

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
    if kind.takes == "columns":  # a missing argument may be a column, which is known only with the prompts
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
