"""A public checkpoint as a trunk's start: from a folder of the repository, an installed package or the Hub.

Only plain data is taken: safetensors, JSON and vocabulary files. Nothing is unpickled, no code that comes with a
checkpoint runs, and a checkpoint's name alone never decides what is read: a folder and a package are recorded by the
digest of their files, the Hub by a commit.
"""

from __future__ import annotations

import logging as levels
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatch
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field, model_validator

from graftline.canonical import read_json
from graftline.digests import FileDigest, digest_files, sha256_file
from graftline.environment import ROOT
from graftline.errors import InputError, brief
from graftline.trunks.layout import quiet
from graftline.trunks.parameters import TrunkParams
from graftline.yamlfile import parse_yaml

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel

WEIGHTS, INDEX, CONFIG, CARD = "model.safetensors", "model.safetensors.index.json", "config.json", "README.md"
CONVERSION = "conversion.json"
"""Beside weights that `graftline convert` made of a PyTorch file: the digests of both."""
MODEL_FILES = (CONFIG, WEIGHTS, "model-*.safetensors", INDEX)
"""Patterns of the files that make up every checkpoint."""
_ADAPTER = "adapter_config.json"
_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
_CONVERT = (
    "convert it once, where nothing can be harmed: "
    "AutoModel.from_pretrained(folder).save_pretrained(new_folder) writes safetensors; "
    "a file of tensors alone: `graftline convert`"
)
_AGAIN = "get the checkpoint again, with its config"
_COMMIT = re.compile(r"[0-9a-f]{40}")
_PACKAGE = re.compile(r"(?P<name>[A-Za-z0-9][A-Za-z0-9._-]*)(==(?P<version>[A-Za-z0-9.!+_-]+))?")


class CheckpointParams(TrunkParams):
    """Where a public checkpoint comes from: exactly one of `path`, `package` and `hub`."""

    trained: ClassVar[bool] = True
    files: ClassVar[tuple[str, ...]]
    """Patterns of the files that make up a checkpoint of the family: what is fetched, and what its digest is over."""

    path: str | None = Field(default=None, min_length=1, max_length=1000)
    """A folder in this repository, relative to its root, with / between the parts."""
    package: str | None = Field(default=None, max_length=200)
    """An installed Python package that ships a model: `name` or `name==version`. It is not imported."""
    folder: str | None = Field(default=None, min_length=1, max_length=1000)
    """The model's folder in the package, such as `model`; null where there is but one."""
    hub: str | None = Field(default=None, pattern=r"^[A-Za-z0-9._-]+/[A-Za-z0-9._-]+$", max_length=200)
    """A repository of the Hugging Face Hub, `owner/name`; goes with `revision`."""
    revision: str | None = None
    """The commit of that repository, 40 hex digits."""
    sha256: str | None = Field(default=None, pattern="^[0-9a-f]{64}$")
    """The digest that the checkpoint's files must have; null to take and record what is there."""

    @model_validator(mode="after")
    def _one_place(self) -> CheckpointParams:
        given = [name for name in ("path", "package", "hub") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"{' and '.join(given) or 'none'} given; give exactly one of path, package and hub")
        if self.folder is not None and self.package is None:
            raise ValueError("folder goes with package only")
        if self.package is not None and not _PACKAGE.fullmatch(self.package):
            raise ValueError(f"package {self.package!r} is neither a name nor name==version")
        return self

    @model_validator(mode="after")
    def _pinned(self) -> CheckpointParams:
        if self.hub is None:
            if self.revision is not None:
                raise ValueError("revision goes with hub only")
        elif self.revision is None:
            raise ValueError(f"hub '{self.hub}' without a revision; give the commit's 40 hex digits")
        elif not _COMMIT.fullmatch(self.revision):
            raise ValueError(
                f"revision {self.revision!r} is no commit: branches and tags move; give the commit's 40 hex digits"
            )
        return self

    @model_validator(mode="after")
    def _inside(self) -> CheckpointParams:
        for name in ("path", "folder"):
            value = getattr(self, name)
            if value is not None and (PurePosixPath(value).is_absolute() or ".." in PurePosixPath(value).parts):
                raise ValueError(f"{name} '{value}' leaves the {'repository' if name == 'path' else 'package'}")
        return self


@dataclass(frozen=True)
class Rootstock:
    """A checkpoint that was found and is plain data; its family says whether it is a whole model."""

    folder: Path
    """Where it lies; nothing was copied."""
    source: str
    """A path in the repository, or a package URL (https://github.com/package-url/purl-spec)."""
    licence: str | None
    """As the model card says, else the package; None where neither does."""
    files: tuple[FileDigest, ...]
    """What makes up the checkpoint, sorted; other files in the folder are none of it."""
    converted_from: str | None = None
    """The sha256 of the PyTorch file that its weights were converted from, as `graftline convert` noted it."""

    @property
    def digest(self) -> str:
        """The sha256 over `files`, as of any folder."""
        return digest_files(list(self.files))

    def annotations(self) -> dict[str, str]:
        """Return what a record says beside the digest."""
        facts = {"source": self.source, "licence": self.licence, "converted_from": self.converted_from}
        return {name: value for name, value in facts.items() if value}


def resolve(params: CheckpointParams, *, where: str = "rootstock") -> Rootstock:
    """Return the checkpoint that `params` name; only `hub` may use the network, and not if HF_HUB_OFFLINE is set.

    Raises:
        InputError: it is not there, is not safetensors, brings code, or is not what is pinned; begins with `where`.
    """
    licence = None
    if params.path is not None:
        folder, source = _in_repository(params.path, params.files, where), params.path
    elif params.package is not None:
        folder, source, licence = _in_package(params.package, params.folder, where)
    else:
        folder, source = _on_hub(str(params.hub), str(params.revision), params.files, where)
    check_plain(folder)
    files = tuple(sorted(_digest(path) for path in _model_files(folder, params.files)))
    found = Rootstock(folder, source, card_licence(folder / CARD) or licence, files, _converted_from(folder, files))
    if params.sha256 is not None and found.digest != params.sha256:
        raise InputError(
            f"{where}.sha256",
            f"the files of {source} have {found.digest}",
            expected=params.sha256,
            fix="get the checkpoint that was pinned; or, if it was meant to change, pin the new digest",
        )
    return found


def _converted_from(folder: Path, files: tuple[FileDigest, ...]) -> str | None:
    """Return the digest of the file that the weights were made from.

    Raises:
        InputError: conversion.json is of other weights.
    """
    path = folder / CONVERSION
    if not path.is_file():
        return None
    noted, actual = read_object(path), {file.path: file.sha256 for file in files}
    if noted.get(WEIGHTS) != actual.get(WEIGHTS):
        raise InputError(
            path, f"it is of {WEIGHTS} {noted.get(WEIGHTS)}", expected=str(actual.get(WEIGHTS)), fix="convert it again"
        )
    return str(noted.get("sha256"))


def _digest(path: Path) -> FileDigest:
    return FileDigest(path.name, path.stat().st_size, sha256_file(path))


def _model_files(folder: Path, patterns: tuple[str, ...]) -> list[Path]:
    return [
        path for path in folder.iterdir() if path.is_file() and any(fnmatch(path.name, pattern) for pattern in patterns)
    ]


def _in_repository(path: str, patterns: tuple[str, ...], where: str) -> Path:
    """Return the folder at `path` of the repository; no link in it may lead out, or a release could hold any file."""
    root, folder = ROOT.resolve(), (ROOT / path).resolve()
    if not folder.is_dir():
        raise InputError(f"{where}.path", f"no folder '{path}' in the repository", fix="check the path")
    for place in (folder, *(file.resolve() for file in _model_files(folder, patterns))):
        if not place.is_relative_to(root):
            raise InputError(f"{where}.path", f"'{path}' leads out of the repository", fix="copy the files into it")
    return folder


def _in_package(package: str, folder: str | None, where: str) -> tuple[Path, str, str | None]:
    """Return the model's folder in an installed package, the package's URL and its licence."""
    parts = _PACKAGE.fullmatch(package)
    assert parts is not None
    name, version = parts["name"], parts["version"]
    try:
        found = distribution(name)
    except PackageNotFoundError:
        raise InputError(
            f"{where}.package", f"the package '{name}' is not installed", fix=f"pip install {package}"
        ) from None
    if version is not None and found.version != version:
        raise InputError(
            f"{where}.package", f"{name} {found.version} is installed", expected=version, fix=f"pip install {package}"
        )
    facts = found.metadata.json  # the names of its fields in lower case, a missing one left out
    licence = str(facts.get("license_expression") or facts.get("license") or "") or None
    source = f"pkg:pypi/{found.metadata['Name'].lower()}@{found.version}"
    return _package_folder(found, name, folder, where), source, licence


def _package_folder(found: Distribution, name: str, folder: str | None, where: str) -> Path:
    """Return the one folder of the package that holds a config and weights, of those that end with `folder`."""
    inside = [PurePosixPath(file.as_posix()) for file in found.files or []]
    weights = {file.parent for file in inside if file.suffix in (".safetensors", *_PICKLES)}
    models = sorted({file.parent for file in inside if file.name == CONFIG} & weights)
    wanted = [m for m in models if folder is None or f"/{m}".endswith(f"/{PurePosixPath(folder)}")]
    if len(wanted) != 1:
        among = f" named '{folder}'" if folder else ""
        raise InputError(
            f"{where}.package",
            f"{name} holds {len(wanted)} model folders{among}",
            expected="one, with config.json and model.safetensors",
            fix="set `folder` to one of " + ", ".join(map(str, models)) if models else "name another package",
        )
    return Path(str(found.locate_file(str(wanted[0]))))


def _on_hub(hub: str, revision: str, patterns: tuple[str, ...], where: str) -> tuple[Path, str]:
    """Return the local folder of a Hub repository at a commit, fetching it unless it is there."""
    import httpx2
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        folder = snapshot_download(
            hub, revision=revision, allow_patterns=[*patterns, CARD], local_files_only=constants.HF_HUB_OFFLINE
        )
    except (HfHubHTTPError, LocalEntryNotFoundError, httpx2.HTTPError) as error:
        offline = isinstance(error, LocalEntryNotFoundError | httpx2.HTTPError)
        reason = "the Hub is out of reach and the cache does not hold it" if offline else brief(error)
        raise InputError(
            f"{where}.hub",
            f"{hub} at {revision[:12]}: {reason}",
            fix="fetch it once where there is a network, or put its files into the repository and name their `path`",
        ) from None
    return Path(folder), f"pkg:huggingface/{hub}@{revision}"


def card_licence(card: Path) -> str | None:
    """Return the licence in the YAML head of a model card (https://huggingface.co/docs/hub/model-cards), or None."""
    if not card.is_file():
        return None
    head = re.match(r"---\r?\n(.*?)\n---", card.read_text(errors="replace", encoding="utf-8"), re.DOTALL)
    try:
        values = parse_yaml(head[1], where=card) if head else None
    except InputError:  # a page for people: what is wrong in it is no reason to stop
        return None
    licence = values.get("license") if isinstance(values, dict) else None
    return licence if isinstance(licence, str) else None


def check_plain(folder: Path) -> None:
    """Raise InputError unless the folder's weights are safetensors, all there, and nothing in it names code."""
    if not (folder / CONFIG).is_file():
        raise InputError(folder, "config.json is missing", expected="a model folder in the Hugging Face layout")
    _check_no_code(folder)
    if (folder / INDEX).is_file():
        shards = read_object(folder / INDEX).get("weight_map")
        if not isinstance(shards, dict) or not shards:
            raise InputError(folder / INDEX, "no weight_map", fix="fetch the checkpoint again")
        names = {str(name) for name in shards.values()}
    else:
        names = {WEIGHTS}
    have = {path.name for path in _model_files(folder, MODEL_FILES)}
    for name in sorted(names - have):
        pickles = sorted(path.name for path in folder.iterdir() if path.suffix in _PICKLES)
        if pickles:
            raise InputError(
                folder / pickles[0],
                "weights in pickle format, which can run code when it is read",
                expected=WEIGHTS,
                fix=_CONVERT,
            )
        raise InputError(folder, f"{name} is missing", expected="weights as safetensors", fix=_CONVERT)


def _check_no_code(folder: Path) -> None:
    """Raise InputError if loading the folder would run its code, or load another model than it holds."""
    if (folder / _ADAPTER).exists():  # transformers would load the model that it names, from wherever
        raise InputError(folder / _ADAPTER, "an adapter, no whole model", fix="merge it into its base model first")
    for path in (folder / CONFIG, folder / "tokenizer_config.json"):
        if path.is_file() and (key := _code_key(read_object(path))):
            raise InputError(
                path,
                f"{key}: the checkpoint names code to load, which is never done",
                fix="choose a checkpoint whose architecture transformers has",
            )


def _code_key(values: dict[str, Any]) -> str | None:
    """Return the key, at any depth, that would make transformers load code: a module or a kernel of the Hub."""
    for key, value in values.items():
        kernel = key.endswith("attn_implementation") and "/" in str(value)
        if key == "auto_map" or kernel:
            return key
        if isinstance(value, dict) and (inner := _code_key(value)):
            return f"{key}.{inner}"
    return None


def read_object(path: Path) -> dict[str, Any]:
    values = read_json(path)
    if not isinstance(values, dict):
        raise InputError(path, f"a {type(values).__name__}", expected="a mapping", fix="fetch the checkpoint again")
    return values


def _check_tensors(path: Path, fix: str) -> None:
    """Raise InputError unless the file is whole and its floating-point tensors are finite."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118  (not a mapping)
                tensor = file.get_tensor(name)
                if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
                    raise InputError(path, f"{name} is NaN or infinite", fix=fix)
    except SafetensorError as error:
        raise InputError(path, brief(error), expected="a whole safetensors file", fix=fix) from None


def load(
    folder: Path,
    auto: str,
    optional: Callable[[str], bool],
    *,
    config: PreTrainedConfig | None = None,
    fix: str = _AGAIN,
) -> PreTrainedModel:
    """Return transformers' model of the class `auto` in a folder, offline, in float32.

    Args:
        folder: in the Hugging Face layout.
        auto: such as `AutoModel`.
        optional: says of a tensor's name whether it may be missing.
        config: instead of the folder's.
        fix: what to do about a folder that is none.

    Raises:
        InputError: a file is damaged or does not fit config.json; a tensor is missing, or is not finite.
    """
    import transformers

    for path in sorted(folder.glob("model*.safetensors")):
        _check_tensors(path, fix)
    given = {} if config is None else {"config": config}
    try:
        with quietly():
            model, report = getattr(transformers, auto).from_pretrained(
                folder, dtype="float32", local_files_only=True, use_safetensors=True, output_loading_info=True, **given
            )
    except damages() as error:
        raise InputError(folder, brief(error), expected="tensors that fit config.json", fix=fix) from None
    missing = sorted(name for name in report["missing_keys"] if not optional(name))
    if missing:
        raise InputError(
            folder / WEIGHTS,
            f"{missing[0]} is missing (and {len(missing) - 1} more)",
            expected="each tensor that config.json asks for",
            fix=fix,
        )
    network: PreTrainedModel = model
    return network


def read_architecture(folder: Path, kind: str) -> PreTrainedConfig:
    """Return transformers' configuration in a folder, offline. Raises InputError: it is none of `kind`, such as a
    detector.
    """
    from transformers import AutoConfig

    quiet()
    try:
        config: PreTrainedConfig = AutoConfig.from_pretrained(folder, local_files_only=True)
    except damages() as error:
        raise InputError(folder / CONFIG, f"no config of {kind} ({brief(error)})", fix=_AGAIN) from None
    return config


def damages() -> tuple[type[Exception], ...]:
    """Return what transformers raises at files that are damaged, or whose values are of another type, 0 or empty."""
    from huggingface_hub.errors import StrictDataclassError

    plain = (ArithmeticError, AttributeError, ImportError, LookupError, OSError, RuntimeError, TypeError, ValueError)
    return *plain, StrictDataclassError


@contextmanager
def quietly() -> Iterator[None]:
    """Keep transformers' progress bars and its notes on unused heads off the screen."""
    from transformers.utils import logging

    before, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity(levels.CRITICAL)
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(before)
        if bars:
            logging.enable_progress_bar()
