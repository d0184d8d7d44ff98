"""No file names a package index, a registry or a folder of the machine that it was written on."""

import os
import re
from collections.abc import Iterator
from pathlib import Path

# In parts, so that this file does not hold what it looks for.
INDEX_HOSTS = (
    ("pypi", "org"),
    ("pythonhosted", "org"),
    ("npmjs", "org"),
    ("npmjs", "com"),
    ("maven", "org"),
    ("maven", "apache", "org"),
    ("sonatype", "org"),
    ("crates", "io"),
    ("anaconda", "org"),
    ("docker", "io"),
    ("ghcr", "io"),
    ("quay", "io"),
)
FORBIDDEN = re.compile(
    "|".join(re.escape(".".join(host)) for host in INDEX_HOSTS)
    + r"|(?<![\w.~-])/(?:work|farm|root)/"
)
MADE_BY_TOOLS = {"__pycache__", "build", "dist"}


def text_files(repository: Path) -> Iterator[tuple[Path, str]]:
    """Yield what a commit could hold: no hidden folder but .ci, nothing that tools made."""
    for folder, subfolders, files in os.walk(repository):
        here = Path(folder).relative_to(repository)
        subfolders[:] = [
            name
            for name in subfolders
            if (name == ".ci" or not name.startswith("."))
            and name not in MADE_BY_TOOLS
            and here / name != Path("models")
        ]
        for name in files:
            try:
                yield here / name, (repository / here / name).read_text(encoding="utf-8")
            except UnicodeDecodeError:
                continue  # binary


def test_nothing_points_at_one_index_or_one_machine(repository: Path) -> None:
    found = [
        f"{path}:{number}: {match.group()}"
        for path, text in text_files(repository)
        for number, line in enumerate(text.splitlines(), start=1)
        for match in FORBIDDEN.finditer(line)
    ]

    assert found == []


def test_the_walk_reads_the_files_that_matter(repository: Path) -> None:
    paths = {str(path) for path, _ in text_files(repository)}

    assert {".ci/run", "Makefile", "lock/dev.txt", "cortex_stream/settings/tree.py"} <= paths


def test_an_index_host_and_a_machine_path_would_be_found() -> None:
    host, folder = ".".join(INDEX_HOSTS[0]), "work".join("//")

    assert FORBIDDEN.search(f"see {host}/simple")
    assert FORBIDDEN.search(f"open('{folder}x')")
    assert not FORBIDDEN.search("docs/work/notes")
