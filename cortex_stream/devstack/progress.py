"""What a stack tells whoever waits for it."""

from typing import Protocol


class Progress(Protocol):
    """Told from several threads at once."""

    def say(self, line: str) -> None:
        """Hear one line about a step that was taken."""
        ...

    def downloaded(self, *, done_bytes: int, total_bytes: int) -> None:
        """Hear how far the downloads are."""
        ...


class Quiet:
    """Tells nobody."""

    def say(self, line: str) -> None:
        """Drop the line."""

    def downloaded(self, *, done_bytes: int, total_bytes: int) -> None:
        """Drop the figures."""
