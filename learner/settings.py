"""What all settings of the learner have in common."""

from pydantic import BaseModel


class Settings(BaseModel, frozen=True, extra="forbid", use_attribute_docstrings=True):
    """Frozen, and unknown keys are refused."""
