"""The Hugging Face hub, as far as a model is uploaded to it."""

from __future__ import annotations

import re
from pathlib import Path

from orchestrator.config.recipe import ConfigError

NAME = re.compile(r"\w(?:[\w.-]{0,94}\w)?", re.ASCII)
MAX_SAID = 500
"""Characters of an error of the hub that are passed on."""


class HubError(RuntimeError):
    """The hub, or the way to it, refuses an upload."""


def check_name(repository: str) -> None:
    """Raise ConfigError for what is no OWNER/NAME."""
    owner, slash, name = repository.partition("/")
    if not slash:
        raise ConfigError(
            f"{repository!r} names no owner: write OWNER/NAME, where OWNER is you or an organization of yours, such as "
            f"your-name/{repository if NAME.fullmatch(repository) else 'my-model'}"
        )
    is_name = all(NAME.fullmatch(part) for part in (owner, name)) and not name.endswith(".git")
    if not is_name or ".." in repository or "--" in repository:
        raise ConfigError(
            f"{repository!r} is not a name on the hub: write OWNER/NAME in letters, digits, single '-', '_' and '.', "
            "each of at most 96 characters, without '-' or '.' at either end, and without .git at the end"
        )


def hub_token() -> str:
    """Return the token that the hub's own tools use. Raises ConfigError where there is none."""
    from huggingface_hub import get_token

    token = get_token()
    if not token:
        raise ConfigError(
            "there is no token of the Hugging Face hub: `hf auth login` keeps one, or set HF_TOKEN to one that may "
            "write (https://huggingface.co/settings/tokens). --dry-run writes the folder without one"
        )
    return token


def upload(folder: Path, repository: str, token: str, said: str, *, is_private: bool) -> str:
    """Upload a folder in one commit, into a new repository or over an earlier upload, and return its URL.

    Args:
        said: the commit's message.
        is_private: make a new repository private; one that there is stays as it is.

    Raises HubError.
    """
    from huggingface_hub import HfApi

    hub = HfApi(token=token)
    try:
        # Without a wish the organization's own default holds.
        url = hub.create_repo(repository, private=is_private or None, exist_ok=True)
        hub.upload_folder(repo_id=repository, folder_path=folder, commit_message=said)
    except Exception as error:  # any error of the hub, the network or a library
        raise HubError(refusal(error, repository, token)) from error
    return str(url)


def refusal(error: Exception, repository: str, token: str) -> str:
    """Return why an upload failed, and what to do. It never holds the token."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    text = " ".join(str(error).replace(token, "(the token)").split())[:MAX_SAID]
    owner = repository.partition("/")[0]
    advice = {
        400: "the hub refuses the card or a file, for example an unknown --license",
        401: "the token is not valid (any more): `hf auth login`, or set HF_TOKEN",
        403: f"the token may not write to {owner}: use one that may, or another owner",
        404: f"the token may not write to an owner {owner} on the hub: use another owner, or another token",
    }.get(status or 0, "check the network and the hub, and start the same command again: uploaded files are kept")
    return f"{repository} could not be uploaded: {advice}. The hub says: {type(error).__name__}: {text}"
