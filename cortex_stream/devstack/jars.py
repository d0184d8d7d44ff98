"""Kafka's jars: pinned in `kafka_jars.lock`, fetched in parallel."""

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

from cortex_stream.artifacts import Artifact, fetch, place
from cortex_stream.devstack.progress import Progress

KAFKA_VERSION: Final = "4.1.0"
LOCK_FILE: Final = Path(__file__).with_name("kafka_jars.lock")
_CONNECTIONS: Final = 6


def pinned_jars() -> list[Artifact]:
    """Return what the lock file pins."""
    jars = []
    for line in LOCK_FILE.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            sha256, size_bytes, coordinates = line.split()
            group, name, version = coordinates.split(":")
            jars.append(Artifact(group, name, version, sha256, int(size_bytes)))
    return jars


def fetch_jars(progress: Progress, *, folder: Path | None = None) -> list[Path]:
    """Return the verified jars, downloading those that the cache lacks.

    Raises:
        ArtifactFailed: one of them did not come; the others stay in the cache.
    """
    jars = pinned_jars()
    missing = [jar for jar in jars if not place(jar, folder=folder).exists()]
    total_bytes = sum(jar.size_bytes or 0 for jar in missing)
    done_bytes = dict.fromkeys(missing, 0)
    lock = threading.Lock()

    def fetch_one(jar: Artifact) -> Path:
        def report(jar_bytes: int, _: int) -> None:
            with lock:
                done_bytes[jar] = jar_bytes
                progress.downloaded(done_bytes=sum(done_bytes.values()), total_bytes=total_bytes)

        return fetch(jar, progress=report if jar in done_bytes else None, folder=folder)

    with ThreadPoolExecutor(_CONNECTIONS) as pool:
        return list(pool.map(fetch_one, jars))
