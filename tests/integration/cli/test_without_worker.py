"""Where nobody answers but the test: late, wrong and chosen outcomes."""

import asyncio
import json
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import orjson
import pytest
from typer.testing import Result

from cortex_stream.clock import SystemClock
from cortex_stream.errors import OperatorError
from cortex_stream.kafka.producer import KafkaProducer
from cortex_stream.kafka.reader import TopicReader
from cortex_stream.loadtest.load import embed_requests
from cortex_stream.loadtest.session import LoadSession
from cortex_stream.loadtest.traffic import Poisson, Traffic
from cortex_stream.record import OutgoingRecord
from cortex_stream.settings.tree import load_settings
from schemas.outcomes import OutcomeKind
from schemas.priority import Lane
from topics.names import RESULTS, request_topic

pytestmark = pytest.mark.integration

Run = Callable[..., Result]


def outcome(request_id: str, kind: OutcomeKind) -> OutgoingRecord:
    """Return the outcome of a request as a record of the results topic."""
    error = {"code": "stuck_run", "message": "too slow", "field": None, "retryable": False}
    value = orjson.dumps(
        {
            "id": "d" * 32,
            "type": kind.type,
            "time": "2026-01-31T12:00:00Z",
            "subject": request_id,
            "data": {
                "request_id": request_id,
                "request_type": "cortex.nlp.embed.v1",
                "output": None,
                "error": None if kind is OutcomeKind.RESULT else error,
                "model": None,
                "timings_ms": {},
                "attempt": 1,
                "cache": None,
                "replay_id": None,
            },
        }
    )
    return OutgoingRecord(RESULTS, request_id.encode(), value)


async def produce(*records: OutgoingRecord) -> None:
    producer = KafkaProducer(load_settings())
    await producer.start()
    try:
        await producer.send(*records)
    finally:
        await producer.stop()


async def answer_once(request_id: str, kind: OutcomeKind) -> None:
    """Wait for the request, then put its outcome on the results topic."""
    async with TopicReader(load_settings(), [request_topic(Lane.MEDIUM)]) as requests:
        async for record in requests.follow():
            if record.key == request_id.encode():
                await produce(outcome(request_id, kind))
                return


@contextmanager
def answering(request_id: str, kind: OutcomeKind) -> Iterator[None]:
    """Answer one request while the block runs."""
    peer = threading.Thread(target=lambda: asyncio.run(answer_once(request_id, kind)), daemon=True)
    peer.start()
    yield
    peer.join(20)
    assert not peer.is_alive()


@pytest.mark.parametrize(
    ("kind", "exit_code"),
    [
        (OutcomeKind.RESULT, 0),
        (OutcomeKind.REJECTED, 3),
        (OutcomeKind.EXPIRED, 4),
        (OutcomeKind.DEAD_LETTER, 5),
    ],
)
def test_each_kind_of_outcome_has_its_exit_code(
    run: Run, kind: OutcomeKind, exit_code: int
) -> None:
    request_id = f"coded-{kind.value}"

    with answering(request_id, kind):
        result = run("send", "embed", "x", "--id", request_id, "--wait")

    assert result.exit_code == exit_code, result.output
    assert kind.value in result.stdout


def test_an_outcome_from_before_the_request_does_not_count(run: Run) -> None:
    asyncio.run(produce(outcome("twice-1", OutcomeKind.RESULT)))

    result = run("send", "embed", "x", "--id", "twice-1", "--wait", "--timeout-s", "1")

    assert result.exit_code == 6
    assert "no outcome of twice-1 within 1 s" in result.stderr
    assert "cortex-stream results --id twice-1" in result.stderr


def test_results_are_chosen_by_id_and_kind_and_limited(run: Run) -> None:
    asyncio.run(
        produce(
            *(outcome(f"chosen-{n}", OutcomeKind.RESULT) for n in range(5)),
            outcome("chosen-bad", OutcomeKind.EXPIRED),
        )
    )

    by_id = run("results", "--id", "chosen-3", "--json")
    by_kind = run("results", "--id", "chosen-bad", "--kind", "expired")
    limited = run("results", "--limit", "2", "--json")
    none = run("results", "--id", "chosen-bad", "--kind", "result")

    assert [json.loads(line)["subject"] for line in by_id.stdout.splitlines()] == ["chosen-3"]
    assert "stuck_run: too slow" in by_kind.stdout
    assert len(limited.stdout.splitlines()) == 2
    assert none.stdout == "no outcomes\n"


def test_following_shows_new_outcomes_until_interrupted(environment: Mapping[str, str]) -> None:  # noqa: ARG001 (it holds for the child too)
    words = [sys.executable, "-m", "cortex_stream", "results", "--follow", "--from", "earliest"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as following:
        asyncio.run(produce(outcome("followed-1", OutcomeKind.RESULT)))
        assert following.stdout is not None
        assert following.stderr is not None

        shown = next(line for line in following.stdout if b"followed-1" in line)
        following.send_signal(signal.SIGINT)

        assert b"result" in shown
        assert following.wait(20) == 130
        assert b"Traceback" not in following.stderr.read()


@pytest.mark.usefixtures("environment")
async def test_a_load_that_nobody_answers_ends_with_what_is_missing() -> None:
    settings, clock = load_settings(), SystemClock()
    requests = embed_requests(["a", "b"], run="unanswered", seed=1)

    async with LoadSession(settings, clock=clock, every_s=0.05, patience_s=0.5) as session:
        with pytest.raises(OperatorError, match="2 of 2 requests have none"):
            await session.burst(requests, seen=lambda _: None)


@pytest.mark.usefixtures("environment")
async def test_a_load_that_is_not_answered_in_time_is_measured_as_far_as_it_was() -> None:
    async with LoadSession(load_settings(), clock=SystemClock(), every_s=0.05) as session:
        ledger = await session.run(
            [Traffic("unheard", Poisson(100))],
            name="unheard",
            seconds=0.2,
            seed=3,
            seen=lambda _: None,
            settle_s=0.2,
        )

    assert len(ledger.missing()) == ledger.sent_count > 0


def test_doctor_finds_all_services_and_only_the_model_missing(run: Run, tmp_path: object) -> None:
    result = run("doctor", "--json", env={"CORTEX_MODELS__FOLDER": f"{tmp_path}/none"})

    checks = json.loads(result.stdout)["checks"]
    assert result.exit_code == 1
    assert [check["name"] for check in checks if not check["ok"]] == ["model minilm"]


def test_doctor_finds_missing_topics(run: Run) -> None:
    result = run("doctor", env={"CORTEX_KAFKA__TOPIC_PREFIX": "nobody-made-these"})

    assert result.exit_code == 1
    assert "FAILED topics" in result.stdout
    assert "repair: cortex-stream topics apply" in result.stdout
