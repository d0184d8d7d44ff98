"""Puts a version into the folder of models, whole or not at all.

A version is made in a hidden folder beside its place, flushed to the disk, and renamed.
"""

import fcntl
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from cortex_stream.errors import OperatorError
from cortex_stream.registry.manifest import Manifest
from cortex_stream.registry.plain_file import file_sha256
from cortex_stream.registry.store import ModelStore, ModelVersion
from cortex_stream.settings.sections import ModelsSettings


def install(
    settings: ModelsSettings, facts: Mapping[str, object], fill: Callable[[Path], None]
) -> ModelVersion:
    """Install a version, in place of one of the same name and version; return it, verified.

    Args:
        settings: the folder of models and the largest file.
        facts: the fields of the manifest, without `files` and `digest`.
        fill: writes the version's files into the folder that it is given.

    Raises:
        OperatorError: the disk refuses.
        UnsafeModel: what was written is not what the store would load.
    """
    try:
        settings.folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".incoming-", dir=settings.folder) as temporary:
            staging = Path(temporary) / str(facts["name"]) / str(facts["version"])
            staging.mkdir(parents=True)
            fill(staging)
            _seal(staging, facts, max_file_bytes=int(settings.file_bytes))
            # Checked before anybody can see it, by the eyes that will check it at every start.
            staged = settings.model_copy(update={"folder": Path(temporary)})
            ModelStore(staged).resolve(f"{facts['name']}@{facts['version']}")
            _publish(staging, settings.folder / str(facts["name"]) / str(facts["version"]))
    except OSError as error:
        raise OperatorError(
            f"installing {facts['name']}@{facts['version']} into {settings.folder}: {error}",
            repair="make the folder writable, or set CORTEX_MODELS__FOLDER to one with space",
        ) from error
    return ModelStore(settings).resolve(f"{facts['name']}@{facts['version']}")


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Let one process at a time install into the folder of models."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / ".lock").open("w")
    except OSError as error:
        raise OperatorError(
            f"locking the folder of models {folder}: {error.strerror}",
            repair="make it writable, or set CORTEX_MODELS__FOLDER",
        ) from error
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _seal(folder: Path, facts: Mapping[str, object], *, max_file_bytes: int) -> None:
    files = {path.name: file_sha256(path, max_bytes=max_file_bytes) for path in folder.iterdir()}
    content = {"format": 1, **facts, "files": dict(sorted(files.items()))}
    manifest = Manifest.model_validate({**content, "digest": "sha256:" + "0" * 64})
    manifest.sealed().write(folder)


def _publish(staging: Path, target: Path) -> None:
    for path in [*staging.iterdir(), staging]:
        _flush(path)
    target.parent.mkdir(exist_ok=True)
    if os.path.lexists(target):
        # Two renames: a crash between them leaves no version, never half of one. The old one goes
        # with the temporary folder; no model is named with a dot first.
        target.rename(staging.with_name(".replaced"))
    staging.rename(target)
    _flush(target.parent)


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
