"""Fetch models from the Hugging Face Hub into the local cache."""

import logging
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from gigasr.errors import join_lines
from gigasr.models.checkpoint import CONFIG, ONNX, PICKLED

logger = logging.getLogger(__name__)

WEIGHT_SUFFIXES = (".safetensors", *PICKLED, ONNX)  # preferred suffix first
SHAPE = re.compile(r"[\w.-]+/[\w.-]+(@[\w./-]+)?")


class HubName(NamedTuple):
    """owner/name, or owner/name@revision."""

    repository: str
    revision: str | None

    @classmethod
    def parse(cls, name: str) -> "HubName | None":
        """Parse a name; return None for the path of a file or a bundled name."""
        if (
            SHAPE.fullmatch(name) is None
            or name.startswith(".")
            or PurePosixPath(name).suffix.lower() in WEIGHT_SUFFIXES
        ):
            return None
        repository, _, revision = name.partition("@")
        return cls(repository, revision or None)


def weights_among(names: Iterable[str]) -> list[str]:
    """Select the files of weights in a folder, without its subfolders."""
    return [name for name in sorted(names) if PurePosixPath(name).suffix.lower() in WEIGHT_SUFFIXES and "/" not in name]


def choose_weights(names: Iterable[str], source: str) -> str:
    """Choose the file of weights in a folder; raises ValueError unless there is one.

    Suffixes are preferred in the order of `WEIGHT_SUFFIXES`, then files named model.*.
    """
    found = weights_among(names)
    for suffix in WEIGHT_SUFFIXES:
        of_kind = [name for name in found if name.lower().endswith(suffix)]
        named = [name for name in of_kind if PurePosixPath(name).stem == "model"]
        if len(named or of_kind) == 1:
            return (named or of_kind)[0]
        if of_kind:
            raise ValueError(f"{source}: expected one file of weights, got {', '.join(of_kind)}; give one as a file")
    raise ValueError(
        f"{source}: expected a file of weights ({', '.join(WEIGHT_SUFFIXES)}), got none; choose another model"
    )


def local_weights(name: str) -> Path | None:
    """Find the file of weights of a path: the file, or the one in the folder.

    returns: None if the path does not exist
    """
    path = Path(name)
    if path.is_file():
        return path
    if not name or not path.is_dir():
        return None
    return path / choose_weights((each.name for each in path.iterdir()), name)


def cached(name: HubName) -> Path | None:
    """Find the weights in the local cache, offline; None if absent."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        folder = Path(snapshot_download(name.repository, revision=name.revision, local_files_only=True))
    except LocalEntryNotFoundError:
        return None
    found = weights_among(path.name for path in folder.iterdir())
    return folder / choose_weights(found, str(folder)) if found else None


def download_model(name: HubName) -> Path:
    """Download only the weights and config.json of a model into the cache.

    The source and the size are logged before the download.

    returns: the file of weights, in the same folder as config.json
    """
    from huggingface_hub import HfApi, hf_hub_download
    from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError

    shown = "@".join(part for part in name if part)
    wanted = "it in the cache or the Hugging Face Hub within reach"
    with one_line_hub_errors(shown, wanted, "fetch it on a connected machine (gigasr models fetch), or give a file"):
        api = HfApi()
        try:
            info = api.model_info(name.repository, revision=name.revision, files_metadata=True)
        except (RepositoryNotFoundError, RevisionNotFoundError):
            raise ValueError(
                f"model: expected a model of the Hugging Face Hub, got '{shown}'; check the name"
            ) from None
        sizes = {file.rfilename: file.size or 0 for file in info.siblings or []}
        chosen = [file for file in (CONFIG, choose_weights(sizes, shown)) if file in sizes]
        megabytes = sum(sizes[file] for file in chosen) / 1e6
        logger.warning("%s: fetching %s, %.1f MB, from %s", shown, " and ".join(chosen), megabytes, api.endpoint)
        paths = [Path(hf_hub_download(name.repository, file, revision=name.revision)) for file in chosen]
    return paths[-1]


@contextmanager
def one_line_hub_errors(shown: str, wanted: str, advice: str) -> Iterator[None]:
    """Turn errors of the Hub's client and its HTTP packages into a ConnectionError.

    The error has one line: shown, wanted, the reason, advice.
    """
    try:
        yield
    except Exception as error:
        if not isinstance(error, OSError) and not type(error).__module__.startswith(("http", "huggingface_hub")):
            raise
        reason = join_lines(str(error))[:160]
        raise ConnectionError(f"{shown}: expected {wanted}, got: {reason}; {advice}") from None
