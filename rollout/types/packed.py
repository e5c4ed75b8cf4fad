"""A group in packed form: its header can be read without unpacking its tokens and texts."""

from __future__ import annotations

import pickle
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rollout.types.completions import CompletionHeader, Group, RemoteGroup
from rollout.types.prompts import Prompt


@dataclass(frozen=True)
class PackedGroup:
    """An ungraded group: the header, and the pickled rest."""

    prompt_id: str
    completions: tuple[CompletionHeader, ...]
    content: NDArray[np.uint8]
    """The pickled Group. As an array it can be read in the object store without a copy."""

    @classmethod
    def of(cls, group: Group) -> PackedGroup:
        content = np.frombuffer(pickle.dumps(group, pickle.HIGHEST_PROTOCOL), dtype=np.uint8)
        return cls(group.prompt.id, tuple(completion.header for completion in group.completions), content)

    def unpack(self) -> Group:
        group: Group = pickle.loads(self.content.data)
        return group

    def remote(self, prompt: Prompt, reference: Any) -> RemoteGroup:
        """Return the RemoteGroup with this header, whose group is at ``reference``."""
        return RemoteGroup(prompt, self.completions, reference=reference)
