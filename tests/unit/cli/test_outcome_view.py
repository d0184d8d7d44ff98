import base64
import io
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from cortex_stream.cli.outcome_view import kind_of, show_line, show_outcome
from schemas.outcomes import OutcomeKind


def outcome(kind: OutcomeKind, **data: Any) -> dict[str, Any]:
    """Return an outcome as it is read from Kafka."""
    return {
        "id": "0" * 32,
        "type": kind.type,
        "time": "2026-01-31T12:34:56.789Z",
        "subject": "r1",
        "data": {
            "request_id": "r1",
            "request_type": "cortex.nlp.embed.v1",
            "output": None,
            "error": None,
            "model": {"name": "minilm", "version": "1", "digest": "sha256:" + "0" * 64},
            "timings_ms": {"queue": 1.25, "total": 6.0},
            "attempt": 1,
            "cache": None,
            **data,
        },
    }


def shown(event: dict[str, Any], texts: tuple[str, ...] = ()) -> str:
    file = io.StringIO()
    show_outcome(Console(file=file, width=80, highlight=False), event, texts=texts)
    return file.getvalue()


def line(event: dict[str, Any]) -> str:
    file = io.StringIO()
    show_line(Console(file=file, width=80, highlight=False), event)
    return file.getvalue()


VECTOR = np.array([0.5, -0.25, 0.125, 1.0], "<f4")
EMBEDDED = {"dims": 4, "tokens": [4], "truncated": [True]}


@pytest.mark.parametrize(
    "output",
    [
        {
            **EMBEDDED,
            "encoding_format": "base64",
            "vectors": [base64.b64encode(VECTOR.tobytes()).decode()],
        },
        {**EMBEDDED, "encoding_format": "float", "vectors": [VECTOR.tolist()]},
    ],
)
def test_an_embedding_shows_each_text_with_the_begin_of_its_vector(output: dict[str, Any]) -> None:
    text = shown(outcome(OutcomeKind.RESULT, output=output), ("hello\nworld",))

    assert "result r1" in text
    assert "vector (4 numbers)" in text
    assert "hello world" in text
    assert "4 (cut)" in text
    assert "[0.500, -0.250, 0.125, …]" in text
    assert "minilm@1 · queue 1.2 ms · total 6.0 ms" in text


def test_a_classification_shows_labels_best_first() -> None:
    scores = [{"label": "good", "score": 0.9}, {"label": "bad", "score": 0.1}]
    output = {"classifications": [scores], "tokens": [5], "truncated": [False]}

    text = shown(outcome(OutcomeKind.RESULT, output=output), ("fine",))

    assert text.index("90.0%  good") < text.index("10.0%  bad")


def test_an_error_shows_code_message_and_whether_to_try_again() -> None:
    error = {
        "code": "too_long",
        "message": "data.texts[3]: 33 KiB",
        "field": "data.texts[3]",
        "retryable": True,
    }

    text = shown(outcome(OutcomeKind.DEAD_LETTER, error=error, model=None, attempt=3))

    assert "dead_letter r1" in text
    assert "too_long: data.texts[3]: 33 KiB (may succeed later)" in text
    assert "attempt 3" in text
    assert "minilm" not in text


def test_texts_of_strangers_are_neither_markup_nor_terminal_commands() -> None:
    error = {"code": "c", "message": "[red]\x1b[2Jx", "field": None, "retryable": False}
    event = outcome(OutcomeKind.REJECTED, error=error, request_id="\x1b]0;id\x07[b]")

    for text in (shown(event), line(event)):
        assert "\x1b" not in text
        assert "\x07" not in text
        assert "[red]" in text
        assert "[b]" in text


def test_a_line_says_when_how_which_and_what_in_80_columns() -> None:
    text = line(outcome(OutcomeKind.RESULT))

    assert text.split() == ["01-31", "12:34:56", "result", "r1", "6.0", "ms", "embed"]
    assert len(text.rstrip("\n")) <= 80


def test_a_line_in_a_file_is_never_cut() -> None:
    error = {"code": "c", "message": "m" * 300, "field": None, "retryable": False}

    assert "m" * 300 in line(outcome(OutcomeKind.REJECTED, error=error))


@pytest.mark.parametrize("kind", list(OutcomeKind))
def test_the_kind_is_read_from_the_type(kind: OutcomeKind) -> None:
    assert kind_of(outcome(kind)) is kind
