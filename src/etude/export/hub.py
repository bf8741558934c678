"""An upload to the Hugging Face hub, as one commit."""

from __future__ import annotations

import re
from pathlib import Path

from etude.errors import UserError

NAME = re.compile(r"[\w.-]+/[\w.-]+")


def check_name(name: str) -> None:
    if not NAME.fullmatch(name):
        raise UserError(f"a model of the hub is called owner/name; got '{name}'")


def upload(directory: Path, name: str, private: bool) -> str:
    """Makes the repository `name` if need be, and commits `directory`; returns its address. Raises `UserError`."""
    from huggingface_hub import HfApi
    from huggingface_hub.utils import disable_progress_bars

    disable_progress_bars()
    api = HfApi(library_name="etude")
    try:
        address = api.create_repo(name, private=private, exist_ok=True)
        api.upload_folder(repo_id=name, folder_path=directory, commit_message="Model exported from etude")
    except Exception as error:  # its own classes, and those of the HTTP library beneath
        cause = re.sub(r"\s+", " ", str(error)).strip()[:300]
        status = getattr(getattr(error, "response", None), "status_code", None)
        hint = "; log in with `hf auth login`, or set HF_TOKEN" if status in (401, 403) else ""
        raise UserError(f"the hub did not take {name}: {type(error).__name__}: {cause}{hint}") from error
    return str(address)
