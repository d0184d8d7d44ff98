"""Every installation is pinned, hashed and bound to no index."""

import re
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

LOCKS = {  # lock -> the extras it was resolved for
    "dev.txt": ("cpu", "stack", "dev"),
    "worker-cpu.txt": ("cpu",),
    "worker-gpu.txt": ("gpu",),
    "bench.txt": ("cpu", "stack", "dev", "bench"),
}
HELD_BACK_BY_PEERS = {"pydantic", "pydantic-core", "pydantic-settings"}
FLOORS = {  # name -> the first version without a known hole
    "aiohttp": "3.13.4",
    "redis": "4.5.4",
}


def entries(repository: Path, lock: str) -> list[str]:
    """Return one line per requirement, hashes included."""
    text = (repository / "lock" / lock).read_text(encoding="utf-8").replace("\\\n", " ")
    return [line for line in text.splitlines() if line and not line.startswith("#")]


def pins(repository: Path, lock: str) -> set[str]:
    return {line.partition(" --hash")[0].strip() for line in entries(repository, lock)}


def declared(repository: Path, extras: tuple[str, ...]) -> list[Requirement]:
    project = tomllib.loads((repository / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    texts = [*project["dependencies"]]
    for extra in extras:
        texts += project["optional-dependencies"][extra]
    return [Requirement(text) for text in texts]


def test_there_are_no_other_locks(repository: Path) -> None:
    assert {path.name for path in (repository / "lock").iterdir()} == set(LOCKS)


@pytest.mark.parametrize("lock", LOCKS)
def test_every_requirement_is_pinned_and_hashed(lock: str, repository: Path) -> None:
    loose = [
        line
        for line in entries(repository, lock)
        if not re.match(r"[\w.-]+==[^ ]+ .*--hash=sha256:[0-9a-f]{64}", line)
    ]

    assert loose == []


@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_names_no_place_to_download_from(lock: str, repository: Path) -> None:
    text = (repository / "lock" / lock).read_text(encoding="utf-8")

    assert re.findall(r"://|^--.*|\S+ @ \S+", text, flags=re.MULTILINE) == []


@pytest.mark.parametrize(("lock", "extras"), LOCKS.items())
def test_a_lock_is_fresh(lock: str, extras: tuple[str, ...], repository: Path) -> None:
    locked = [Requirement(pin) for pin in pins(repository, lock)]

    stale = [
        str(wanted)
        for wanted in declared(repository, extras)
        if not any(
            canonicalize_name(pin.name) == canonicalize_name(wanted.name)
            and wanted.specifier.contains(str(pin.specifier).removeprefix("=="))
            for pin in locked
        )
    ]

    assert stale == [], "run `make lock`"


def test_a_worker_ships_the_versions_that_were_tested(repository: Path) -> None:
    tested, shipped = pins(repository, "dev.txt"), pins(repository, "worker-cpu.txt")

    assert shipped < tested


def test_a_benchmark_runs_the_versions_that_were_tested_but_for_those_that_peers_hold_back(
    repository: Path,
) -> None:
    tested, compared = pins(repository, "dev.txt"), pins(repository, "bench.txt")

    assert {Requirement(pin).name for pin in tested - compared} <= HELD_BACK_BY_PEERS


def test_a_gpu_worker_differs_by_its_runtime_only(repository: Path) -> None:
    cpu, gpu = pins(repository, "worker-cpu.txt"), pins(repository, "worker-gpu.txt")

    missing = {Requirement(pin).name for pin in cpu - gpu}
    added = {Requirement(pin).name for pin in gpu - cpu}

    assert missing == {"onnxruntime"}
    assert {name for name in added if not name.startswith("nvidia-")} == {"onnxruntime-gpu"}


@pytest.mark.parametrize("lock", LOCKS)
@pytest.mark.parametrize(("name", "floor"), FLOORS.items())
def test_a_locked_version_is_above_its_security_floor(
    lock: str, name: str, floor: str, repository: Path
) -> None:
    (pin,) = (Requirement(pin) for pin in pins(repository, lock) if Requirement(pin).name == name)

    assert Requirement(f"{name}>={floor}").specifier.contains(str(pin.specifier)[2:])


@pytest.mark.parametrize(("name", "floor"), FLOORS.items())
def test_an_installed_version_is_above_its_security_floor(name: str, floor: str) -> None:
    assert Requirement(f"{name}>={floor}").specifier.contains(version(name))
