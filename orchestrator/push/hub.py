"""Upload a model to the Hugging Face hub."""

from __future__ import annotations

import re
from pathlib import Path

from orchestrator.config.recipe import ConfigError

NAME = re.compile(r"\w(?:[\w.-]{0,94}\w)?", re.ASCII)
MAX_SAID = 500
"""Largest number of characters of the hub's error in our message."""


class HubError(RuntimeError):
    """An upload failed, because of the hub or the network."""


def check_name(repository: str) -> None:
    """Raise ConfigError if a name on the hub does not have the form OWNER/NAME."""
    owner, slash, name = repository.partition("/")
    if not slash:
        raise ConfigError(
            f"{repository!r} has no owner: write OWNER/NAME, where OWNER is you or an organization of yours, such as "
            f"your-name/{repository if NAME.fullmatch(repository) else 'my-model'}"
        )
    is_name = all(NAME.fullmatch(part) for part in (owner, name)) and not name.endswith(".git")
    if not is_name or ".." in repository or "--" in repository:
        raise ConfigError(
            f"{repository!r} is not a name on the hub: write OWNER/NAME in letters, digits, single '-', '_' and '.', "
            "each of at most 96 characters, without '-' or '.' at either end, and without .git at the end"
        )


def hub_token() -> str:
    """Return the token that the hub's own tools use. Raises ConfigError if there is none."""
    from huggingface_hub import get_token

    token = get_token()
    if not token:
        raise ConfigError(
            "there is no token for the Hugging Face hub: run `hf auth login`, or set HF_TOKEN to a token with write "
            "permission (https://huggingface.co/settings/tokens). --dry-run writes the folder without a token"
        )
    return token


def upload(folder: Path, repository: str, token: str, message: str, *, is_private: bool) -> str:
    """Upload a folder in one commit, into a new repository or over an earlier upload, and return its URL.

    Args:
        message: the commit's message.
        is_private: make a new repository private; an existing one is not changed.

    Raises HubError if the hub or the network fails.
    """
    from huggingface_hub import HfApi

    hub = HfApi(token=token)
    try:
        # None: the organization's default decides.
        url = hub.create_repo(repository, private=is_private or None, exist_ok=True)
        hub.upload_folder(repo_id=repository, folder_path=folder, commit_message=message)
    except Exception as error:  # any error of the hub, the network or a library
        raise HubError(refusal(error, repository, token)) from error
    return str(url)


def refusal(error: Exception, repository: str, token: str) -> str:
    """Return why an upload failed, and what to do. The text never contains the token."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    text = " ".join(str(error).replace(token, "(the token)").split())[:MAX_SAID]
    owner = repository.partition("/")[0]
    advice = {
        400: "the hub refuses the card or a file, for example an unknown --license",
        401: "the token is not valid, or not any more: run `hf auth login`, or set HF_TOKEN",
        403: f"the token may not write to {owner}: use a token that may, or another owner",
        404: f"the hub has no owner {owner}, or the token may not write to it: use another owner, or another token",
    }.get(status or 0, "check the network and the hub, and start the same command again: uploaded files are kept")
    return f"{repository} could not be uploaded: {advice}. The hub says: {type(error).__name__}: {text}"
