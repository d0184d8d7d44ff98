"""Write `kafka_jars.lock`: every jar that Kafka needs to run, pinned by digest.

Run it (`python -m cortex_stream.devstack.pin`) to change Kafka's version; review the difference.
"""

import hashlib
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

from jgo.maven import Dependency, MavenContext

from cortex_stream.devstack.jars import KAFKA_VERSION, LOCK_FILE

_WANTED: Final = (
    f"org.apache.kafka:kafka_2.13:{KAFKA_VERSION}",
    "org.slf4j:slf4j-simple:1.7.36",  # Kafka's own packages name no log backend: it would be mute
)
_HEADER: Final = """\
# Every jar that Apache Kafka needs at run time: SHA-256, bytes, group:name:version.
# Written by `python -m cortex_stream.devstack.pin`; do not edit.
"""


def main() -> None:
    """Resolve the jars from the public repository and pin what came."""
    with tempfile.TemporaryDirectory() as folder:
        context = MavenContext(repo_cache=Path(folder))
        wanted = [context.create_dependency(coordinates) for coordinates in _WANTED]
        inputs, others = context.resolver.resolve(wanted)
        needed = [jar for jar in inputs + others if jar.scope in {None, "compile", "runtime"}]
        with ThreadPoolExecutor(8) as pool:
            lines = sorted(pool.map(_pinned, needed), key=lambda line: line.split()[-1])
    LOCK_FILE.write_text(_HEADER + "".join(lines), encoding="utf-8")


def _pinned(jar: Dependency) -> str:
    if jar.classifier:
        raise ValueError(f"{jar} has a classifier, which the lock file cannot say")
    content = jar.artifact.resolve().read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    return f"{digest} {len(content):>9} {jar.groupId}:{jar.artifactId}:{jar.version}\n"


if __name__ == "__main__":
    main()
