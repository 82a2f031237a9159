"""Models on the Hugging Face Hub: fetch their files into its cache."""

import logging
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from gigasr.errors import join_lines
from gigasr.models.checkpoint import CONFIG, ONNX, PICKLED

logger = logging.getLogger(__name__)

WEIGHT_SUFFIXES = (".safetensors", *PICKLED, ONNX)  # of weights, the preferred first
SHAPE = re.compile(r"[\w.-]+/[\w.-]+(@[\w./-]+)?")


class HubName(NamedTuple):
    """owner/name, or owner/name@revision."""

    repository: str
    revision: str | None

    @classmethod
    def parse(cls, name: str) -> "HubName | None":
        """None where it is none, but the path of a file or a bundled name."""
        if (
            SHAPE.fullmatch(name) is None
            or name.startswith(".")
            or PurePosixPath(name).suffix.lower() in WEIGHT_SUFFIXES
        ):
            return None
        repository, _, revision = name.partition("@")
        return cls(repository, revision or None)


def weights_among(names: Iterable[str]) -> list[str]:
    """The files of weights of a folder, not of those below it."""
    return [name for name in sorted(names) if PurePosixPath(name).suffix.lower() in WEIGHT_SUFFIXES and "/" not in name]


def choose_weights(names: Iterable[str], source: str) -> str:
    """The one file of weights among those of a folder: safetensors before others, model.* before others."""
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
    """The file of weights that a path stands for, itself or the one in its folder; None where nothing is there."""
    path = Path(name)
    if path.is_file():
        return path
    if not name or not path.is_dir():
        return None
    return path / choose_weights((each.name for each in path.iterdir()), name)


def cached(name: HubName) -> Path | None:
    """The weights in the cache, if they are there; asks nothing of the network."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        folder = Path(snapshot_download(name.repository, revision=name.revision, local_files_only=True))
    except LocalEntryNotFoundError:
        return None
    found = weights_among(path.name for path in folder.iterdir())
    return folder / choose_weights(found, str(folder)) if found else None


def download_model(name: HubName) -> Path:
    """Download the weights and their config.json, and nothing else, into the cache; source and size are said first.

    returns: the weights; the config lies beside them
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
    """Turn what the Hub's client raises, of several packages, into a ConnectionError of one line."""
    try:
        yield
    except Exception as error:
        if not isinstance(error, OSError) and not type(error).__module__.startswith(("http", "huggingface_hub")):
            raise
        reason = join_lines(str(error))[:160]
        raise ConnectionError(f"{shown}: expected {wanted}, got: {reason}; {advice}") from None
