"""Each peer does the whole work: every request is answered, rightly, and it ends when told to."""

import importlib.metadata
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import orjson
import psutil
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from cortex_stream.devstack.stack import Stack
from cortex_stream.inference.model import load_model
from cortex_stream.loadtest.corpus import paragraphs
from cortex_stream.loadtest.ledger import vectors_of
from cortex_stream.registry.store import ModelVersion
from cortex_stream.settings.sections import InferenceSettings
from schemas.requests import EMBED

pytestmark = [pytest.mark.integration, pytest.mark.slow]

TEXTS = paragraphs()[:200]
INSTALLED = {each.name for each in importlib.metadata.distributions()}
STOP_PATIENCE_S = 10  # 1 to 2 on an idle machine


@dataclass(frozen=True)
class Place:
    """Where a peer works: topics and a group that no other test has."""

    brokers: str
    requests: tuple[str, str]
    results: str
    group: str


@pytest.fixture
async def place(stack: Stack, topic_prefix: str) -> AsyncIterator[Place]:
    place = Place(
        stack.kafka_brokers,
        (f"{topic_prefix}.critical", f"{topic_prefix}.low"),
        f"{topic_prefix}.results",
        f"{topic_prefix}.peer",
    )
    admin = AIOKafkaAdminClient(bootstrap_servers=place.brokers)
    await admin.start()
    topics = [*place.requests, place.results]
    await admin.create_topics([NewTopic(name, 4, 1) for name in topics])
    yield place
    await admin.delete_topics(topics)
    await admin.close()


@pytest.fixture(scope="module")
def minilm(pulled_models: Callable[[str], ModelVersion]) -> ModelVersion:
    return pulled_models("minilm")


@pytest.fixture(scope="module")
def own_vectors(minilm: ModelVersion) -> npt.NDArray[np.float32]:
    """The vectors that our own runner gives to each text alone."""
    model = load_model(minilm, InferenceSettings())
    rows = [model.runners[0].run([row])[0] for row in model.tokenizer.encode(TEXTS)]
    model.close()
    return np.stack(rows)


@pytest.mark.parametrize(
    ("peer", "processes", "library"),
    [
        ("aiokafka_loop", 1, "aiokafka"),
        ("two_topics", 1, "aiokafka"),
        ("plain_faust", 1, "faust-streaming"),
        ("plain_faust", 2, "faust-streaming"),
        ("quix_streams", 1, "quixstreams"),
        ("quix_streams", 2, "quixstreams"),
        ("faststream", 1, "faststream"),
    ],
)
async def test_a_peer_answers_every_request_like_our_runner_and_ends_when_told(  # noqa: PLR0917
    peer: str,
    processes: int,
    library: str,
    place: Place,
    minilm: ModelVersion,
    own_vectors: npt.NDArray[np.float32],
) -> None:
    if library not in INSTALLED:
        pytest.skip(f"{library} is not installed: it is in the extra `bench`")
    with running(peer, processes, place=place, model=minilm) as started:
        children = psutil.Process(started.pid).children(recursive=True)

        vectors = await embedded(place)

        started.terminate()
        assert started.wait(STOP_PATIENCE_S) == 0
    cosines = np.einsum("rd,rd->r", vectors, own_vectors)
    # An int8 vector depends a little on its batch; of another text it has 0.1 to 0.6.
    assert cosines.mean() > 0.98
    assert cosines.min() > 0.90
    assert len(children) >= (processes if processes > 1 else 0)
    assert not [child for child in children if child.is_running()]


@contextmanager
def running(
    peer: str, processes: int, *, place: Place, model: ModelVersion
) -> Iterator[subprocess.Popen[str]]:
    """Start a peer and wait until it is ready; kill what is left of it at the end."""
    command = [sys.executable, "-m", f"cortex_stream.loadtest.peers.{peer}"]
    command += ["--brokers", place.brokers, "--group", place.group, "--results", place.results]
    command += ["--requests", ",".join(place.requests), "--model", str(model.folder)]
    command += ["--processes", str(processes)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as started:
        assert started.stdout is not None
        try:
            assert started.stdout.readline() == "ready\n"
            yield started
        finally:
            with suppress(ProcessLookupError):
                os.killpg(started.pid, signal.SIGKILL)


async def embedded(place: Place) -> npt.NDArray[np.float32]:
    """Request a vector for every text, in turns on both topics, and return them all."""
    found: dict[bytes, npt.NDArray[np.float32]] = {}
    async with (
        AIOKafkaProducer(bootstrap_servers=place.brokers) as producer,
        AIOKafkaConsumer(
            place.results, bootstrap_servers=place.brokers, auto_offset_reset="earliest"
        ) as consumer,
    ):
        for index, text in enumerate(TEXTS):
            request_id = f"{index}"
            event = {"id": request_id, "type": EMBED, "source": "//test", "data": {"texts": [text]}}
            topic, key = place.requests[index % 2], request_id.encode()
            await producer.send(topic, key=key, value=orjson.dumps({"specversion": "1.0", **event}))
        await producer.flush()
        async for record in consumer:
            answer = orjson.loads(record.value)
            assert answer["subject"] == answer["data"]["request_id"] == record.key.decode()
            [found[record.key]] = vectors_of(answer["data"]["output"])
            if len(found) == len(TEXTS):
                break
    return np.stack([found[f"{index}".encode()] for index in range(len(TEXTS))])
