"""Real English that every machine has: the paragraphs of Python's own language reference.

The texts differ a little between Python versions; equal versions give equal texts in equal order.
"""

import re
from collections.abc import Iterable
from pydoc_data.topics import topics
from typing import Final

_BLANK_LINES: Final = re.compile(r"\n\s*\n")
_SENTENCE_END: Final = re.compile(r"(?<=[.!?])\s+(?=[A-Z])")
_SHORT_CHARACTERS: Final = range(20, 100)  # about 17 tokens on average


def paragraphs() -> list[str]:
    """Return about 2,000 different paragraphs: 42 tokens on average, with a long tail."""
    pieces = (piece for topic in sorted(topics) for piece in _BLANK_LINES.split(topics[topic]))
    return _distinct(pieces)


def short_texts() -> list[str]:
    """Return about 1,500 different single sentences: 17 tokens on average."""
    sentences = (piece for text in paragraphs() for piece in _SENTENCE_END.split(text))
    return [text for text in _distinct(sentences) if len(text) in _SHORT_CHARACTERS]


def prose() -> list[str]:
    """Return the paragraphs that people like to read: whole sentences, no code, no headings."""
    return [
        text
        for text in paragraphs()
        if 80 <= len(text) <= 600  # noqa: PLR2004 (characters)
        and text[0].isupper()
        and text.endswith(".")
        and not set(text) & set("=*{}|")
    ]


def repeated(texts: list[str], *, copies: int) -> list[str]:
    """Return every text `copies` times, numbered from the second on, so that no cache helps."""
    return [text if copy == 0 else f"{text} ({copy})" for copy in range(copies) for text in texts]


def _distinct(pieces: Iterable[str]) -> list[str]:
    """Return each piece once, on one line, in order of first appearance."""
    lines = (" ".join(piece.split()) for piece in pieces)
    return [line for line in dict.fromkeys(lines) if line]
