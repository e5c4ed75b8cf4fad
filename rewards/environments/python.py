"""Python: `<python>print(2**10)</python>` is answered by what it prints, in `<output>` tags.

Programs run in the sandbox that grades code (rewards/sandbox): without network, files or processes of the machine, with
limits on time, memory and output. A program can use what earlier programs of the same completion defined.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Sequence
from math import inf
from typing import ClassVar

from rewards.environments.calls import PARTS, CallCounts, called
from rewards.sandbox.box import REQUIRED, check_protections
from rewards.sandbox.processor import STRETCH
from rewards.sandbox.session import Session
from rollout.types.environments import CUT, Observation
from rollout.types.prompts import Prompt

_FENCE = re.compile(r"\A\s*```[a-zA-Z0-9]*[ \t]*\n(.*?)\n?\s*```\s*\Z", re.DOTALL)
LOST = "; the variables are lost"
TIME_LIMIT_S = 2.0


class Python:
    """Runs programs. A turn without one ends the completion."""

    stop = ("</python>",)
    parts = PARTS
    ranges: ClassVar = {
        "time_limit_s": (0.01, 3600),
        "memory_mib": (64, 2**20),
        "max_output_characters": (1, inf),
    }

    def __init__(
        self,
        time_limit_s: float = TIME_LIMIT_S,
        memory_mib: int = 512,
        max_output_characters: int = 2000,
        stateful: bool = True,
        require: Sequence[str] = REQUIRED,
    ) -> None:
        """Keep the settings. The sandbox starts with the first program.

        Args:
            time_limit_s: CPU seconds of a program. Its wall-clock limit is three times as long, and must be below
                `environment.deadline_s`.
            memory_mib: MiB of memory, about 30 of them Python's own.
            max_output_characters: a longer output is cut at the end.
            stateful: whether a program can use what earlier programs defined.
            require: the required protections, as in `rewards.parameters.code.require`.
        """
        self._max_output_characters = max_output_characters
        self._stateful = stateful
        self._counts = CallCounts()
        self._settings = (time_limit_s, memory_mib, require)
        self._session: Session | None = None

    @staticmethod
    def prepare(*, require: Sequence[str] = REQUIRED, **_: object) -> None:
        """Raise SandboxError, with the fix, if programs cannot run safely on this machine."""
        check_protections(tuple(require))

    @staticmethod
    def longest_call_s(*, time_limit_s: float = TIME_LIMIT_S, **_: object) -> float:
        """Return the wall-clock seconds that a program may take."""
        return STRETCH * time_limit_s

    def start(self, prompt: Prompt, seed: int) -> Observation:
        """Return an empty observation."""
        self._session = Session(*self._settings, seed=seed)
        return Observation("")

    def step(self, text: str) -> Observation:
        """Run the program that a turn ends with."""
        self._counts.read(text)
        program = called(text, "python")
        if program is None:
            return Observation("", is_over=True, parts=self._counts.parts)
        assert self._session is not None
        ran = self._session.run(unwrapped(program))
        if not self._stateful:
            self._session.close()
        self._counts.record(None if ran.error else ran.output)
        output = ran.output.rstrip("\n")
        if len(output) > self._max_output_characters:
            output = output[: self._max_output_characters] + CUT
        error = ran.error + (LOST if ran.is_lost and self._stateful else "")
        said = "\n".join(part for part in (output, error) if part)
        return Observation(f"\n<output>\n{said}\n</output>\n", parts=self._counts.parts)

    def close(self) -> None:
        """End the sandbox."""
        if self._session is not None:
            self._session.close()


def unwrapped(program: str) -> str:
    """Return a program without a code fence around it and without the common indent of its lines."""
    fenced = _FENCE.match(program)
    return textwrap.dedent(fenced[1] if fenced else program).strip("\n")
