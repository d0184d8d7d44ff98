import json
from collections.abc import Callable

import pytest
from typer.testing import Result

from cortex_stream.loadtest.worker_process import WorkerProcess

pytestmark = pytest.mark.integration

Run = Callable[..., Result]


def test_an_embedding_is_sent_awaited_and_shown(run: Run, worker: WorkerProcess) -> None:
    result = run("send", "embed", "hello", "--text", "world", "--wait")

    assert result.exit_code == 0, result.output
    assert "vector (384 numbers)" in result.stdout
    assert "hello" in result.stdout
    assert "world" in result.stdout
    assert "minilm@2" in result.stdout
    worker.check()


def test_a_classification_says_the_likelier_label_first(run: Run, worker: WorkerProcess) -> None:
    words = ("--label", "a complaint", "--label", "praise", "--wait", "--priority", "critical")

    result = run("send", "classify", "I want my money back, this is broken", *words)

    assert result.exit_code == 0, result.output
    assert result.stdout.index("a complaint") < result.stdout.index("praise")
    worker.check()


def test_lines_of_stdin_are_texts_and_the_outcome_comes_as_json(
    run: Run, worker: WorkerProcess
) -> None:
    words = ("--wait", "--json", "--id", "stdin-1", "--subject", "s", "--tenant", "t")

    result = run("send", "embed", "-", *words, input="one\n\ntwo words\n")

    outcome = json.loads(result.stdout)
    assert outcome["data"]["request_id"] == "stdin-1"
    assert len(outcome["data"]["output"]["vectors"]) == 2
    worker.check()


@pytest.mark.parametrize(
    ("words", "exit_code", "shown"),
    [
        (("embed", "x", "--model", "nope"), 3, "unknown_model"),
        (("embed", "--data", '{"texts": [], "x": 1}'), 3, "invalid_field"),
        (("no.such.type", "x"), 3, "unknown_type"),
        (("embed", "x", "--deadline-ms", "0"), 4, "deadline_exceeded"),
    ],
)
def test_a_refusal_has_its_exit_code_and_says_why(
    run: Run, worker: WorkerProcess, words: tuple[str, ...], exit_code: int, shown: str
) -> None:
    result = run("send", *words, "--wait")

    assert result.exit_code == exit_code, result.output
    assert shown in result.stdout
    worker.check()


def test_without_waiting_the_request_itself_is_shown(run: Run) -> None:
    sent = run("send", "embed", "x", "--id", "later-1")
    as_json = run("send", "embed", "x", "--id", "later-2", "--deadline-ms", "5000", "--json")

    assert (sent.exit_code, as_json.exit_code) == (0, 0)
    assert "sent later-1 to test-" in sent.stdout
    request = json.loads(as_json.stdout)
    assert (request["id"], request["deadlinems"]) == ("later-2", 5000)
    assert request["data"] == {"texts": ["x"]}
