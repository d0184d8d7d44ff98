"""Opens files of a folder that is not trusted."""

import hashlib
import os
import stat
from io import BufferedReader
from pathlib import Path

from cortex_stream.errors import UnsafeModel


def open_plain(path: Path, *, max_bytes: int) -> BufferedReader:
    """Open a regular file for reading; what was checked is what is read.

    Raises:
        UnsafeModel: it is missing, a link, a device or a pipe, has a second name (hard link), or is
            too large.
    """
    try:
        # Not following links; not blocking, as opening a named pipe would wait for a writer.
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        raise UnsafeModel(f"opening {path}: not a plain file: {error.strerror}") from error
    try:
        _check(path, os.fstat(descriptor), max_bytes=max_bytes)
        return open(descriptor, "rb")  # noqa: PTH123 (a descriptor)
    except BaseException:
        os.close(descriptor)
        raise


def file_sha256(path: Path, *, max_bytes: int) -> str:
    """Return the SHA-256 (hex) of a plain file.

    Raises:
        UnsafeModel: see `open_plain`.
    """
    with open_plain(path, max_bytes=max_bytes) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _check(path: Path, status: os.stat_result, *, max_bytes: int) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise UnsafeModel(f"opening {path}: not a plain file")
    if status.st_nlink != 1:
        raise UnsafeModel(
            f"opening {path}: it has {status.st_nlink} names (hard links), so it may be a file of"
            " somebody else",
            repair="copy the file instead of linking it",
        )
    if status.st_size > max_bytes:
        raise UnsafeModel(
            f"opening {path}: {status.st_size} bytes, allowed are {max_bytes}",
            repair="raise CORTEX_MODELS__FILE_BYTES if a model is really that large",
        )
