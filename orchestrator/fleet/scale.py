"""`rayzero scale RUN N`: ask for a number of generators through a file in the run's directory."""

from __future__ import annotations

import json
import logging
from pathlib import Path

from orchestrator.config.schema import RunConfig
from orchestrator.records.files.atomic_file import write_atomically

logger = logging.getLogger(__name__)

FILE = "scale.json"
KEY = "num_generators"
INSTEAD_OF = "instead_of"
"""The run's setting at that time. If a later command changed the setting, the request is outdated."""


class ScaleError(ValueError):
    """The run cannot have this number of generators."""


def request_generators(run: Path, count: int) -> None:
    """Request `count` generators for the run in that directory, from its next step on. Raises ScaleError."""
    if not (run / "config.json").is_file():
        raise ScaleError(
            f"{str(run)!r} is not a run: it has no config.json. Give a run's directory, such as runs/<name>"
        )
    if count < 1:
        raise ScaleError(f"{count} generators: a run needs at least 1")
    config = json.loads((run / "config.json").read_text())
    if config["placement"]["mode"] == "colocated":
        raise ScaleError(
            'the run has placement.mode = "colocated", where each generator takes turns with a learner rank on one '
            'GPU: their number is fixed; use placement.mode = "pods"'
        )
    write_atomically(run / FILE, json.dumps({KEY: count, INSTEAD_OF: config["rollout"][KEY]}) + "\n")


def requested_generators(config: RunConfig) -> int | None:
    """Return the requested number of generators.

    None when nothing was asked, when it cannot be read, and when a later command has changed the recipe's number.
    """
    file = config.directory / FILE
    try:
        request = json.loads(file.read_text())
        count, instead_of = request[KEY], request.get(INSTEAD_OF, config.rollout.num_generators)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        logger.warning("%s is ignored: %s", file, error)
        return None
    is_newest = instead_of == config.rollout.num_generators
    return count if is_newest and isinstance(count, int) and count >= 1 else None
