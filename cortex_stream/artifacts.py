"""Downloads of pinned Maven artifacts: resumable, checked against their digest, kept for all.

Invariants:
    A path that `fetch` returned held the pinned bytes at that moment.
    A file appears under its final name only after its digest was checked, by an atomic rename.

Owner: any thread or process; one file lock per artifact lets one of them download.
"""

import fcntl
import hashlib
import http.client
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cortex_stream.environment import cache_folder
from cortex_stream.errors import ArtifactFailed

Progress = Callable[[int, int], None]  # bytes done, bytes in all (0: not known yet)

_FRUITLESS_TRIES: Final = 5  # in a row without a new byte; a slow link that advances may go on
_FIRST_PAUSE_S: Final = 0.5  # doubles: 0.5, 1, 2, 4, so a dead link is given up after 7.5 s
_CHUNK_BYTES: Final = 256 << 10
_WORTH_RETRYING: Final = frozenset({408, 425, 429, 500, 502, 503, 504})
_NOTHING_BEYOND: Final = 416  # the part already holds all that there is, or more
_PARTIAL: Final = 206
_NETWORK_ERRORS: Final = (
    urllib.error.URLError,
    http.client.HTTPException,
    ssl.SSLError,
    ConnectionError,
    TimeoutError,
)


@dataclass(frozen=True, slots=True)
class Artifact:
    """One jar in a Maven repository, pinned by its SHA-256 (hex)."""

    group: str
    name: str
    version: str
    sha256: str
    size_bytes: int | None = None

    @property
    def path(self) -> str:
        """The place below a repository's base address, and below the cache folder."""
        group = self.group.replace(".", "/")
        return f"{group}/{self.name}/{self.version}/{self.name}-{self.version}.jar"


def place(artifact: Artifact, *, folder: Path | None = None) -> Path:
    """Return where `fetch` puts the artifact, whether it is there or not."""
    return (folder or cache_folder() / "artifacts") / artifact.path


def fetch(  # noqa: D417 (the rest is explained by its type)
    artifact: Artifact,
    *,
    progress: Progress | None = None,
    folder: Path | None = None,
    base_url: str | None = None,
    pause: Callable[[float], None] = time.sleep,
    timeout_s: float = 30.0,
) -> Path:
    """Return the artifact's verified file, downloading what is missing of it. Blocks.

    An interrupted download goes on where it stopped, also in a later process.

    Args:
        progress: told about every chunk; and once, as complete, when nothing was to be done.
        folder: the cache; by default the user's.
        base_url: a Maven repository; by default the public one, whose address `jgo` knows.
        timeout_s: a connection silent for so long counts as cut.

    Raises:
        ArtifactFailed: it did not arrive, or not with the pinned digest.
    """
    target = place(artifact, folder=folder)
    report = progress or _silent
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with _locked(target.with_suffix(".lock")):
            if not target.exists() or _sha256(target) != artifact.sha256:
                download = _Download(
                    artifact,
                    url=f"{(base_url or _public_url()).rstrip('/')}/{artifact.path}",
                    part=target.with_suffix(".part"),
                    report=report,
                    pause=pause,
                    timeout_s=timeout_s,
                )
                download.finish().replace(target)
    except OSError as error:  # of the disk: those of the network became ArtifactFailed below
        raise ArtifactFailed(
            f"keeping {artifact.path} in {target.parent}: {error}",
            repair="make the folder writable, or point XDG_CACHE_HOME to one with space",
        ) from error
    size_bytes = target.stat().st_size
    report(size_bytes, size_bytes)
    return target


class _Download:
    """One artifact on its way into its part file."""

    def __init__(
        self,
        artifact: Artifact,
        *,
        url: str,
        part: Path,
        report: Progress,
        pause: Callable[[float], None],
        timeout_s: float,
    ) -> None:
        self._artifact = artifact
        self._url = url
        self._part = part
        self._report = report
        self._pause = pause
        self._timeout_s = timeout_s

    def finish(self) -> Path:
        """Return the part, complete and verified."""
        resumed = self._have_bytes() > 0
        self._receive()
        if resumed and not self._verified():  # the old part may be at fault: once more, from zero
            self._part.unlink()
            self._receive()
        if not self._verified():
            actual, size_bytes = _sha256(self._part), self._have_bytes()
            self._part.unlink()
            raise ArtifactFailed(
                f"downloading {self._url}: the {size_bytes} bytes that came have SHA-256 {actual},"
                f" pinned is {self._artifact.sha256}; they were deleted",
                repair="look for a proxy that alters downloads, then run the command again",
            )
        return self._part

    def _have_bytes(self) -> int:
        return self._part.stat().st_size if self._part.exists() else 0

    def _verified(self) -> bool:
        return _sha256(self._part) == self._artifact.sha256

    def _receive(self) -> None:
        most_bytes, fruitless = self._have_bytes(), 0
        while True:
            try:
                return self._receive_once()
            except urllib.error.HTTPError as error:
                error.close()
                if error.code not in _WORTH_RETRYING:
                    raise self._failed(error) from error
                reason: Exception = error
            except _NETWORK_ERRORS as error:
                reason = error
            fruitless = 0 if self._have_bytes() > most_bytes else fruitless + 1
            most_bytes = max(most_bytes, self._have_bytes())
            if fruitless >= _FRUITLESS_TRIES:
                raise self._failed(reason) from reason
            self._pause(_FIRST_PAUSE_S * 2 ** max(fruitless - 1, 0))

    def _receive_once(self) -> None:
        have_bytes = self._have_bytes()
        request = urllib.request.Request(self._url)  # noqa: S310 (base address from jgo)
        if have_bytes:
            request.add_header("Range", f"bytes={have_bytes}-")
        try:
            response = urllib.request.urlopen(request, timeout=self._timeout_s)  # noqa: S310 (as above)
        except urllib.error.HTTPError as error:
            if error.code != _NOTHING_BEYOND:
                raise
            error.close()
            return  # the digest decides
        with response:
            if response.status != _PARTIAL:  # the server does not know Range: all of it, again
                have_bytes = 0
            total_bytes = have_bytes + int(response.headers.get("Content-Length") or 0)
            with self._part.open("ab" if have_bytes else "wb") as file:
                while chunk := response.read1(_CHUNK_BYTES):
                    file.write(chunk)
                    have_bytes += len(chunk)
                    self._report(have_bytes, self._artifact.size_bytes or total_bytes)
        if have_bytes < total_bytes:
            raise ConnectionError(f"the connection ended after {have_bytes} of {total_bytes} bytes")

    def _failed(self, reason: Exception) -> ArtifactFailed:
        return ArtifactFailed(
            f"downloading {self._url}: {reason}",
            repair="check the network or the proxy, then run the command again: it goes on from"
            f" byte {self._have_bytes()}",
        )


def _silent(_done_bytes: int, _total_bytes: int) -> None:
    """Tell nobody."""


def _public_url() -> str:
    from jgo.constants import MAVEN_CENTRAL_URL  # noqa: PLC0415 (0.3 s, needed by downloads alone)

    return MAVEN_CENTRAL_URL


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold the lock file. It stays behind: removing it would let two holders in."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
