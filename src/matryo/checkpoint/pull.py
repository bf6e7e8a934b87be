"""`matryo pull`: a checkpoint from the Hugging Face hub into a directory.

In: ORG/NAME, a target directory. Out: the same files there. Only weights as safetensors, JSON,
tokenizer and template are asked for, from the top of the repository: never pickles, never code. A
broken connection is continued; a later run fetches the files that are not complete, and not the
others. Until all of it is there, the directory is marked as unfinished and does not load.
"""

from __future__ import annotations

import errno
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from matryo.checkpoint.atomic import UNFINISHED, check_space, replace_text
from matryo.checkpoint.beside import CONFIG, PLANS, TEXT_FILES
from matryo.checkpoint.writing import Progress, own_directory
from matryo.config import TextConfig
from matryo.errors import CapacityError, CheckpointError, ConfigError, MatryoError

_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_WEIGHTS = re.compile(r"model(-\d+-of-\d+)?\.safetensors(\.index\.json)?")
_SETTINGS = frozenset({CONFIG, PLANS, *TEXT_FILES})
_DOWNLOADS = (
    Path(".cache") / "huggingface" / "download"
)  # where the client keeps what is on its way
_ABANDONED = re.compile(r".*\.[0-9a-f]{8}\.incomplete")  # a random name, for one run only
_SECONDS_BETWEEN_LOOKS = 0.5


def pull(
    name: str,
    target: Path,
    *,
    revision: str | None = None,
    token: str | None = None,
    endpoint: str | None = None,
    progress: Progress | None = None,
) -> Path:
    """Downloads ORG/NAME into `target`, or what is missing of it, and returns `target`.

    revision: a branch, tag or commit · token: None = the one that `hf auth login` stored ·
    endpoint: another hub
    progress: called with (bytes there, bytes in all, name), from another thread
    Raises CheckpointError without a network, without permission, or for a repository without such a
    checkpoint, ConfigError if it is not a Gemma 3n, CapacityError if the disk is too small.
    """
    if not _REPOSITORY.fullmatch(name):
        raise CheckpointError(f"{name[:100]!r} is not the name of a repository; expected ORG/NAME")
    hub = _Hub(name, token, endpoint)
    commit, sizes = hub.files(revision)
    with own_directory(target, wait=False):
        missing = sum(size for file, size in sizes.items() if not (target / file).exists())
        check_space(target, missing)
        _drop_abandoned(target)
        replace_text(target / UNFINISHED, f"{name} {commit}\n")
        hub.fetch(commit, [CONFIG], target)
        _check_architecture(target, name)
        with _reporting(target, sizes, name, progress):
            hub.fetch(commit, list(sizes), target)
        for file, size in sizes.items():
            if not (target / file).is_file() or (target / file).stat().st_size != size:
                raise CheckpointError(
                    "was not downloaded completely: pull again", file=str(target / file)
                )
        (target / UNFINISHED).unlink()
    return target


class _Hub:
    """The hub's client, with its errors in our words."""

    def __init__(self, name: str, token: str | None, endpoint: str | None) -> None:
        self.name, self.token, self.endpoint = name, token, endpoint

    def files(self, revision: str | None) -> tuple[str, dict[str, int]]:
        """The commit of a revision, and the files of it that we read with their sizes."""
        from huggingface_hub import HfApi

        with _our_errors(self.name, revision):
            info = HfApi(endpoint=self.endpoint, token=self.token).model_info(
                self.name, revision=revision, files_metadata=True
            )
        siblings = {file.rfilename: int(file.size or 0) for file in info.siblings or ()}
        sizes = {file: size for file, size in siblings.items() if wanted(file)}
        if info.sha is None or CONFIG not in sizes or not any(map(_WEIGHTS.fullmatch, sizes)):
            raise CheckpointError(
                f"{self.name} holds no config.json with model.safetensors; nothing else is read"
            )
        return info.sha, sizes

    def fetch(self, commit: str, files: list[str], target: Path) -> None:
        """Downloads files of a commit that are not there yet."""
        from huggingface_hub import snapshot_download

        with _our_errors(self.name, commit), _quiet():
            snapshot_download(
                self.name,
                revision=commit,
                local_dir=target,
                allow_patterns=files,
                token=self.token,
                endpoint=self.endpoint,
            )


def wanted(file: str) -> bool:
    """Whether a file of a repository is one that we read."""
    return file in _SETTINGS or _WEIGHTS.fullmatch(file) is not None


def _check_architecture(target: Path, name: str) -> None:
    """Raises ConfigError before gigabytes of another model are fetched."""
    try:
        TextConfig.from_file(target / CONFIG)
    except ConfigError as error:
        (target / CONFIG).unlink(missing_ok=True)
        raise ConfigError(f"{name}: {error}") from error


@contextmanager
def _our_errors(name: str, revision: str | None) -> Iterator[None]:
    try:
        yield
    # The client changes its HTTP library between versions, so what a broken connection raises has
    # no name that lasts.
    except Exception as error:
        raise _translated(error, name, revision) from error


def _translated(error: Exception, name: str, revision: str | None) -> MatryoError:
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    if isinstance(error, GatedRepoError):
        return CheckpointError(
            f"{name} is only for accounts that accepted its terms: do so at "
            f"https://huggingface.co/{name}, "
            "then give --token or run `hf auth login`"
        )
    if isinstance(error, RevisionNotFoundError):
        return CheckpointError(f"{name} has no revision {revision!r}")
    if isinstance(error, RepositoryNotFoundError):
        return CheckpointError(
            f"there is no {name}, or it is private: check the name, or give --token"
        )
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return CapacityError(
            f"{error.strerror} while pulling {name}: free some space and pull again, it continues"
        )
    if isinstance(error, HfHubHTTPError) and getattr(error, "response", None) is not None:
        return CheckpointError(
            f"the hub refused {name}: HTTP {error.response.status_code}; try again later"
        )
    reason = (str(error).strip().splitlines() or [""])[0][:200]
    return CheckpointError(
        f"cannot pull {name}, is there a network? {type(error).__name__}: {reason}"
    )


@contextmanager
def _quiet() -> Iterator[None]:
    """The client's own progress bars and warnings would mix with ours."""
    from huggingface_hub.utils import logging
    from huggingface_hub.utils.tqdm import (
        are_progress_bars_disabled,
        disable_progress_bars,
        enable_progress_bars,
    )

    bars_before, verbosity_before = not are_progress_bars_disabled(), logging.get_verbosity()
    disable_progress_bars()
    logging.set_verbosity(40)  # errors
    try:
        yield
    finally:
        logging.set_verbosity(verbosity_before)
        if bars_before:
            enable_progress_bars()


@contextmanager
def _reporting(
    target: Path, sizes: Mapping[str, int], name: str, progress: Progress | None
) -> Iterator[None]:
    """Reports how much is on the disk while the block runs, whatever the client downloads with."""
    if progress is None:
        yield
        return
    total, end = sum(sizes.values()), threading.Event()

    def look() -> None:
        while not end.wait(_SECONDS_BETWEEN_LOOKS):
            progress(min(_bytes_there(target, sizes), total), total, name)

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield
    finally:
        end.set()
        thread.join()
    progress(total, total, name)


def _drop_abandoned(target: Path) -> None:
    """Removes what a killed client left behind under names that no other run will ever look for."""
    for path in (target / _DOWNLOADS).glob("*.incomplete"):
        if _ABANDONED.fullmatch(path.name):
            path.unlink(missing_ok=True)


def _bytes_there(target: Path, sizes: Mapping[str, int]) -> int:
    """Bytes of finished files and of those that are on their way."""
    paths: list[Any] = [target / file for file in sizes]
    paths += (target / _DOWNLOADS).glob("*.incomplete")
    done = 0
    for path in paths:
        try:
            done += path.stat().st_size
        except OSError:
            continue
    return done
