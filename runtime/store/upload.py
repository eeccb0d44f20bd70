"""The way up to the hub: files of a repository in one commit, all of them or none. The way down is :mod:`.hub`."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ...convert.errors import HubError
from . import places

if TYPE_CHECKING:
    from huggingface_hub import HfApi

Content = Path | bytes


@dataclass(frozen=True, slots=True)
class Upload:
    """One file: its name in the repository, and where its bytes are."""

    name: str
    content: Content


def create(repository: str, *, private: bool) -> None:
    """Make sure that there is such a repository. One that is there stays as public or private as it is.

    Raises:
        HubError: there is none, and it may not be made.
    """
    with _errors(f"making {repository}"):
        _api().create_repo(repository, private=private or None, exist_ok=True)


def commit(repository: str, uploads: Sequence[Upload], message: str, parent: str | None = None) -> str:
    """Upload files; returns the address of the commit. parent: the commit that they were made for, if not any.

    Raises:
        HubError: the hub refused, or has another commit by now.
    """
    from huggingface_hub import CommitOperationAdd

    if not sys.stderr.isatty():
        from huggingface_hub.utils import disable_progress_bars  # type: ignore[attr-defined]

        disable_progress_bars()
    operations = [CommitOperationAdd(upload.name, upload.content) for upload in uploads]
    with _errors(f"uploading to {repository}"):
        done = _api().create_commit(repository, operations, commit_message=message, parent_commit=parent)
    return str(done.commit_url)


def _api() -> HfApi:
    from huggingface_hub import HfApi, get_token

    token = get_token()
    if not token:
        raise HubError("pushing needs a token of the hub", hint="set HF_TOKEN, or run: hf auth login")
    return HfApi(places.hub_endpoint(), token=token)


@contextlib.contextmanager
def _errors(what: str) -> Iterator[None]:
    """Turn the client's failures into ours."""
    from huggingface_hub.errors import HTTPError, OfflineModeIsEnabled  # type: ignore[attr-defined]

    try:
        yield
    except OfflineModeIsEnabled as error:
        raise HubError(f"HF_HUB_OFFLINE forbids {what}", hint="unset it") from error
    except HTTPError as error:
        raise HubError(f"{what} failed: {error}", hint="check HF_ENDPOINT, and that your token may write") from error
    except (ValueError, RuntimeError, OSError) as error:
        raise HubError(f"{what} failed: {error}") from error
