"""An OpenEnv package for tests, as its command line lays them out: a digit is to be guessed; it has a rubric."""

from pathlib import Path

GAME = """
import random

from openenv.core.env_server.interfaces import Environment
from openenv.core.env_server.types import Action, Observation, State
from openenv.core.rubrics import Rubric
from pydantic import Field


class Move(Action):
    number: int = Field(ge=0, le=9)
    loudly: bool = False


class Seen(Observation):
    hint: str = ""
    digits: list[int] = []


class Found(Rubric):
    def forward(self, action, observation):
        return float(observation.hint == "found")


class Both(Rubric):
    def __init__(self):
        super().__init__()
        self.found = Found()

    def forward(self, action, observation):
        return self.found(action, observation)


class Digits(Environment):
    def __init__(self, highest=9):
        super().__init__(rubric=Both())
        self.highest = highest

    def reset(self, seed=None, episode_id=None, low=0):
        self.number = random.Random(seed).randint(low, self.highest)
        return Seen(hint=f"{low} to {self.highest}")

    def step(self, action: Move, timeout_s=None):
        hint = "found" if action.number == self.number else "no"
        seen = Seen(hint=hint, done=hint == "found")
        seen.reward = self._apply_rubric(action, seen) - 0.1
        return seen

    @property
    def state(self):
        return State()
"""


def write_package(folder: Path) -> Path:
    """Write the package `digits_env` into a folder, and return its own."""
    package = folder / "digits_env"
    (package / "server").mkdir(parents=True)
    for file in ("__init__.py", "server/__init__.py"):
        (package / file).touch()
    (package / "openenv.yaml").write_text("spec_version: 1\nname: digits_env\napp: server.app:app\n")
    (package / "server" / "app.py").write_text(GAME)
    return package
