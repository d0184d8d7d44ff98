"""The folder of models: `<name>/<version>/model.yaml` and the files that it names."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cortex_stream.errors import UnknownModel, UnsafeModel
from cortex_stream.registry.manifest import Manifest, read_manifest
from cortex_stream.registry.trust import check_folder, check_plain_folder
from cortex_stream.settings.sections import ModelsSettings

_NAME: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_VERSION: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,31}")


@dataclass(frozen=True, slots=True)
class ModelVersion:
    """A version whose files were checked; only `ModelStore.resolve` makes one.

    Attributes:
        digest: `sha256:` and 64 hex digits, over every file of the folder.
    """

    name: str
    version: str
    digest: str
    folder: Path
    manifest: Manifest

    @property
    def onnx_path(self) -> Path:
        """The graph."""
        return self.folder / self.manifest.file

    @property
    def tokenizer_path(self) -> Path:
        """The `tokenizer.json`."""
        return self.folder / self.manifest.tokenizer


class ModelStore:
    """Finds versions and hands out only those that may be loaded."""

    def __init__(self, settings: ModelsSettings) -> None:
        self._folder = settings.folder
        self._max_file_bytes = int(settings.file_bytes)

    def resolve(self, reference: str) -> ModelVersion:
        """Return the version `name@version`, or the latest of `name`, verified.

        Reads every file once (about a second per GB); keep the answer. Of versions, `10` is later
        than `9`, and `1.10` than `1.9`.

        Raises:
            UnknownModel: it is not in the folder; the text names the command that gets it.
            UnsafeModel: it is, and must not be loaded.
            ModelLoadFailed: its graph is no ONNX.
        """
        name, _, version = reference.partition("@")
        versions = self._versions(name)
        if not versions or (version and version not in versions):
            raise UnknownModel(
                f"looking for model {reference!r} in {self._folder}: it has"
                f" {'versions ' + ', '.join(versions) if versions else 'no such model'}; get it with"
                f" `cortex-stream models pull {name}`"
            )
        version = version or versions[-1]
        folder = self._folder / name / version
        try:
            check_plain_folder(self._folder / name)
            check_plain_folder(folder)
            manifest = read_manifest(folder)
            if (manifest.name, manifest.version) != (name, version):
                raise UnsafeModel(
                    f"checking {folder}: its manifest is that of {manifest.name}@{manifest.version}"
                )
            check_folder(folder, manifest, max_file_bytes=self._max_file_bytes)
        except OSError as error:  # it vanished meanwhile, or may not be read
            raise UnsafeModel(f"checking {folder}: {error}") from error
        return ModelVersion(name, version, manifest.digest, folder, manifest)

    def references(self) -> list[str]:
        """Return `name@version` of every folder of a version, sorted; sound or not."""
        names = sorted(path.name for path in _children(self._folder))
        return [f"{name}@{version}" for name in names for version in self._versions(name)]

    def _versions(self, name: str) -> list[str]:
        """Return the versions of a model, the latest last."""
        if not _NAME.fullmatch(name):
            return []
        found = [path.name for path in _children(self._folder / name)]
        return sorted(filter(_VERSION.fullmatch, found), key=version_order)


def _children(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if path.is_dir()] if folder.is_dir() else []


def version_order(version: str) -> list[tuple[int, str]]:
    """Return a key that sorts versions, the latest last; digits compare as numbers."""
    return [
        (int(part), "") if index % 2 else (0, part)
        for index, part in enumerate(re.split(r"(\d+)", version))  # digits at the odd places
    ]
