"""Environments of OpenEnv, by the names of their packages: `prompts.environment = "openenv:maze_env"`.

A package's openenv.yaml says where its app is; there are the classes of the environment and of its actions. No server
runs. `<action>left</action>` is an action; an invalid one gets an error as observation. Observations come in
`<observation>` tags.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import random
import textwrap
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
from pydantic import ValidationError

from rewards.environments.calls import called
from rewards.environments.openenv_packages import classes_of
from rewards.environments.registry import EnvironmentConfigError
from rollout.types.environments import Observation
from rollout.types.prompts import Prompt

PARTS = ("env_reward", "env_last_reward", "env_actions", "env_refused")
OWN = ("seed", "episode_id")
"""Arguments that `reset` gets if it takes them."""
UNSHOWN = {"reward", "done", "metadata"}
"""Fields of an observation that the policy does not see."""


class OpenEnv:
    """Runs one of OpenEnv's environments. A turn without an action ends the completion."""

    stop = ("</action>",)

    def __init__(
        self,
        package: str,
        init: Mapping[str, Any] | None = None,
        reset: Mapping[str, Any] | None = None,
        field: str = "",
        show: Sequence[str] = (),
    ) -> None:
        """Import the package. `start` makes the environment.

        Args:
            package: name of its package.
            init: keyword arguments of its class.
            reset: keyword arguments of its `reset`, besides `seed` and `episode_id`.
            field: field of an action that a text fills. Empty: the only required field, or the only field.
            show: fields of an observation that the policy reads; empty: all.
        """
        self._classes = classes_of(package)
        self._init, self._reset, self._show = dict(init or {}), dict(reset or {}), tuple(show)
        self._field = field or text_field(self._classes.action)
        self._environment: Any = None
        self._rewards: list[float] = []
        self._refused = 0

    @staticmethod
    def prepare(package: str, **_: object) -> None:
        """Import the package before any deadline starts. Raises EnvironmentConfigError if it cannot be used."""
        classes_of(package)

    @staticmethod
    def parts_of(**parameters: Any) -> tuple[str, ...]:
        """Make and reset an environment, and return the names of its parts, with those of its rubrics.

        Raises EnvironmentConfigError if it cannot be used or does not take the parameters.
        """
        return _parts(json.dumps(parameters, sort_keys=True, default=str))

    @property
    def parts(self) -> dict[str, float]:
        """The parts so far: sum and last of the rewards, actions, invalid actions, and the rubrics' last scores."""
        rewards = self._rewards
        values = (sum(rewards), sum(rewards[-1:]), float(len(rewards)), float(self._refused))
        scores = {name: float(rubric.last_score or 0.0) for name, rubric in self._rubrics()}
        return dict(zip(PARTS, values, strict=True)) | scores

    def start(self, prompt: Prompt, seed: int) -> Observation:
        """Reset the environment, in the same way for all completions of a prompt, so that rewards can be compared."""
        seed = int(prompt.answer.get("seed", zlib.crc32(prompt.id.encode())))
        random.seed(seed)  # for code that takes no seed; the process belongs to this completion alone
        np.random.seed(seed)
        self._environment = self._classes.environment(**self._init)
        given = {"seed": seed, "episode_id": prompt.id, **self._reset}
        observed = self._call("reset", **accepted(self._environment.reset, given))
        return Observation(self._said(observed), bool(observed.done), self.parts)

    def step(self, text: str) -> Observation:
        """Do the action that a turn ends with."""
        inside = called(text, "action")
        if inside is None:
            return Observation("", is_over=True, parts=self.parts)
        try:
            action = self._classes.action.model_validate(self._fields(inside))
        except ValidationError as error:
            self._refused += 1
            first = error.errors()[0]
            said = f"error: {'.'.join(map(str, first['loc']))}: {first['msg']}"
            return Observation(f"<observation>{said}</observation>", parts=self.parts)
        observed = self._call("step", action)
        self._rewards.append(float(observed.reward or 0.0))
        return Observation(self._said(observed), is_over=bool(observed.done), parts=self.parts)

    def close(self) -> None:
        """Close the environment."""
        if self._environment is not None:
            self._environment.close()

    def _fields(self, text: str) -> dict[str, Any]:
        """Return the fields of an action: those of a JSON object, or the field that a text fills."""
        names = self._classes.action.model_fields
        if len(names) > 2 or not self._field:  # besides `metadata`, which every action has
            try:
                fields = json.loads(text)
            except (ValueError, RecursionError):
                fields = None
            if isinstance(fields, dict) and (not self._field or fields.keys() <= names.keys()):
                return fields
        return {self._field: textwrap.dedent(text).strip()} if self._field else {}

    def _call(self, method: str, *arguments: Any, **named: Any) -> Any:
        """Call a method as OpenEnv's server does: the environment's own `async` version, if it has one."""
        from openenv.core.env_server.interfaces import Environment

        waiting = f"{method}_async"
        if getattr(type(self._environment), waiting) is getattr(Environment, waiting):
            return getattr(self._environment, method)(*arguments, **named)
        return asyncio.run(getattr(self._environment, waiting)(*arguments, **named))

    def _said(self, observed: Any) -> str:
        fields = observed.model_dump(mode="json", exclude=UNSHOWN)
        fields = {name: fields[name] for name in self._show or fields if fields[name] not in (None, "", [], {})}
        fields = fields or observed.model_dump(mode="json")["metadata"]
        texts = list(fields.values())
        said = texts[0] if len(texts) == 1 and isinstance(texts[0], str) else json.dumps(fields, ensure_ascii=False)
        return f"<observation>{said}</observation>"

    def _rubrics(self) -> Iterator[tuple[str, Any]]:
        rubric = getattr(self._environment, "rubric", None)
        for name, each in rubric.named_rubrics() if rubric is not None else ():
            yield f"rubric_{name.replace('.', '_')}", each


def text_field(action: type[Any]) -> str:
    """Return the field of an action that a text fills: the only required field, or the only field; else none."""
    fields = {name: each for name, each in action.model_fields.items() if name != "metadata"}
    must = [name for name, each in fields.items() if each.is_required()]
    (only,) = must if len(must) == 1 else fields if len(fields) == 1 else ("",)
    return str(only)


def accepted(method: Callable[..., Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the keyword arguments, without `seed` and `episode_id` if the method does not take them."""
    taken = inspect.signature(method).parameters
    takes_any = any(each.kind is each.VAR_KEYWORD for each in taken.values())
    return {name: each for name, each in given.items() if takes_any or name in taken or name not in OWN}


@cache
def _parts(parameters: str) -> tuple[str, ...]:
    given = json.loads(parameters)
    made = OpenEnv(**given)
    package = given.pop("package")
    try:
        made.start(Prompt("try/0", np.zeros(1, np.int32), "", "game", {}), 0)
        return tuple(made.parts)
    except Exception as error:  # the environment is others' code
        raise EnvironmentConfigError(
            f'prompts.environment = "openenv:{package}" with environment.parameters.{package} = {given} cannot be made '
            f"and reset: {type(error).__name__}: {error}"
        ) from error
    finally:
        made.close()
