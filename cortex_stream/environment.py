"""What the surroundings of this process give, apart from settings: variables for children, a cache."""

import os
import tempfile
from pathlib import Path


def subprocess_environment(**extra: str) -> dict[str, str]:
    """Return this process's environment with `extra` on top, for a child that we start."""
    return {**os.environ, **extra}


def cache_folder() -> Path:
    """Return where downloads are kept between projects (`XDG_CACHE_HOME` or its default)."""
    home = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    try:
        return Path(home).expanduser() / "cortex-stream"
    except RuntimeError:  # no home directory, as in a container with an arbitrary user
        return Path(tempfile.gettempdir()) / "cortex-stream"
