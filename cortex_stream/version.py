"""The version of this release; `pyproject.toml` reads it from here, and so does every page."""

from typing import Final

VERSION: Final = "0.1.0"
