"""Decides whether a version's folder may be loaded. The folder is not trusted, the code is.

ONNX Runtime opens every file that a graph names and runs every operator that it knows, so both are
checked first. What this cannot see: a file exchanged between the check and the load, which takes
write access to the folder of models.
"""

import stat
from pathlib import Path
from typing import Final

from cortex_stream.errors import UnsafeModel
from cortex_stream.registry.manifest import MANIFEST_FILE, Manifest
from cortex_stream.registry.onnx_graph import read_graph
from cortex_stream.registry.plain_file import file_sha256

_ENDLESS: Final = frozenset({"Loop", "Scan", "SequenceMap"})  # may run for ever on a small input
_OPENS_FILES: Final = frozenset({"EPContext"})  # its attribute is a path
_REPAIR: Final = "get the version again with `cortex-stream models pull`, or export it again"


def check_folder(folder: Path, manifest: Manifest, *, max_file_bytes: int) -> None:
    """Check every file of the folder against the manifest, and the graph. Reads all bytes once.

    Raises:
        UnsafeModel: the folder holds anything else than the manifest says, or what may leave it.
        ModelLoadFailed: the graph is no ONNX.
    """
    if manifest.digest != manifest.true_digest():
        raise UnsafeModel(
            f"checking {folder / MANIFEST_FILE}: it states the digest {manifest.digest}, its content"
            f" has {manifest.true_digest()}",
            repair=_REPAIR,
        )
    _check_names(folder, manifest)
    for name in (MANIFEST_FILE, *manifest.files):
        digest = file_sha256(folder / name, max_bytes=max_file_bytes)
        if digest != manifest.files.get(name, digest):
            raise UnsafeModel(
                f"checking {folder / name}: its SHA-256 is {digest}, the manifest says"
                f" {manifest.files[name]}",
                repair=_REPAIR,
            )
    _check_graph(folder / manifest.file, manifest)


def check_plain_folder(folder: Path) -> None:
    """Refuse a folder that is a link, or none.

    Raises:
        UnsafeModel: it is.
    """
    if not stat.S_ISDIR(folder.lstat().st_mode):
        raise UnsafeModel(f"checking {folder}: it is not a plain folder (a link perhaps)")


def _check_names(folder: Path, manifest: Manifest) -> None:
    found, listed = {path.name for path in folder.iterdir()}, {MANIFEST_FILE, *manifest.files}
    if found != listed:
        more, fewer = sorted(found - listed)[:5], sorted(listed - found)[:5]
        raise UnsafeModel(
            f"checking {folder}: the manifest does not list {more}"
            if more
            else f"checking {folder}: {fewer} of the manifest are missing",
            repair=_REPAIR,
        )


def _check_graph(path: Path, manifest: Manifest) -> None:
    graph = read_graph(path)
    # A location must BE the name of a listed file: no `..`, no absolute path, no link can be one.
    if outside := sorted(graph.locations - manifest.files.keys())[:5]:
        raise UnsafeModel(
            f"checking {path}: it reads data from {outside}, not files of this folder"
        )
    if refused := sorted(graph.operators & (_ENDLESS | _OPENS_FILES)):
        raise UnsafeModel(f"checking {path}: operators that a text encoder never needs: {refused}")
