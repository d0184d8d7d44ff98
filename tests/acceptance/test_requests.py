"""Message in, message out, for every type."""

import base64
import json
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest

from schemas.outcomes import Outcome
from schemas.vectors import LakeVector
from tests.acceptance.system import System

pytestmark = [pytest.mark.integration, pytest.mark.asyncio(loop_scope="module")]

REFERENCE = Path(__file__).parents[1] / "fixtures" / "minilm_reference.json"


def unpacked(vector: str) -> "np.ndarray[Any, np.dtype[np.float32]]":
    return np.frombuffer(base64.b64decode(vector), dtype="<f4")


async def test_the_least_request_a_person_can_type_is_answered(running: System) -> None:
    # given
    line = b'{"id":"1","type":"cortex.nlp.embed.v1","data":{"texts":["hello"]}}'

    # when
    await (await running.send_raw("cortex.requests.medium", line))

    # then
    outcome = await running.outcome("1")
    assert outcome["type"] == "cortex.outcome.result.v1"
    assert outcome["data"]["output"]["dims"] == 384
    assert outcome["data"]["output"]["tokens"] == [3]


async def test_an_outcome_is_what_its_schema_promises_and_keyed_by_request_id(
    running: System,
) -> None:
    # given
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

    # when
    await (
        await running.send(
            "schema", "cortex.nlp.embed.v1", {"texts": ["a", "b"]}, traceparent=trace
        )
    )
    await running.outcome("schema")

    # then
    [record] = [r for r in running.records["cortex.results"] if r.key == b"schema"]
    outcome = Outcome.model_validate_json(record.value)
    assert outcome.subject == outcome.data.request_id == "schema"
    assert outcome.traceparent == trace
    assert outcome.data.model is not None
    assert outcome.data.model.name == "minilm"
    assert {"queue", "embedding", "total"} <= outcome.data.timings_ms.keys()
    assert record.timestamp_type == 1, "cortex.results must carry the broker's append time"


async def test_vectors_are_those_of_the_original_weights(running: System) -> None:
    # given
    reference = json.loads(REFERENCE.read_text())["items"]

    # when
    await (
        await running.send(
            "reference", "cortex.nlp.embed.v1", {"texts": [item["text"] for item in reference]}
        )
    )
    output = (await running.outcome("reference"))["data"]["output"]

    # then
    cosines = [
        float(unpacked(got) @ unpacked(item["vector"]))
        for got, item in zip(output["vectors"], reference, strict=True)
    ]
    assert min(cosines) >= 0.94, cosines
    assert sum(cosines) / len(cosines) >= 0.98
    assert output["tokens"] == [item["tokens_used"] for item in reference]
    assert output["truncated"] == [item["tokens"] > item["tokens_used"] for item in reference]


async def test_float_encoding_gives_the_numbers_of_base64(running: System) -> None:
    # when
    for form in ("base64", "float"):
        await (
            await running.send(
                f"form-{form}",
                "cortex.nlp.embed.v1",
                {"texts": ["one text"], "encoding_format": form},
            )
        )
    packed = (await running.outcome("form-base64"))["data"]["output"]["vectors"][0]
    numbers = (await running.outcome("form-float"))["data"]["output"]["vectors"][0]

    # then
    assert float(unpacked(packed) @ np.array(numbers, np.float32)) > 0.97


async def test_lake_vectors_gets_an_embedding_only_when_the_request_has_a_subject(
    running: System,
) -> None:
    # when
    await (
        await running.send(
            "with-subject", "cortex.nlp.embed.v1", {"texts": ["kept"]}, subject="doc-7"
        )
    )
    await (await running.send("without-subject", "cortex.nlp.embed.v1", {"texts": ["not kept"]}))
    outcome = await running.outcome("with-subject")
    await running.outcome("without-subject")
    await running.read_to_the_end()

    # then
    mine = [
        LakeVector.model_validate_json(record.value)
        for record in running.records["lake.vectors"]
        if orjson.loads(record.value)["request_id"] in {"with-subject", "without-subject"}
    ]
    assert [(v.subject, v.request_id) for v in mine] == [("doc-7", "with-subject")]
    assert mine[0].vectors == outcome["data"]["output"]["vectors"]
    assert mine[0].outcome_id == outcome["id"]


async def test_classify_ranks_the_fitting_label_first(running: System) -> None:
    # when
    await (
        await running.send(
            "classify",
            "cortex.nlp.classify.v1",
            {
                "texts": ["The striker scored twice.", "Interest rates rose again."],
                "labels": ["sports", "finance", "cooking"],
            },
            lane="high",
        )
    )
    output = (await running.outcome("classify"))["data"]["output"]

    # then
    best = [ranked[0]["label"] for ranked in output["classifications"]]
    assert best == ["sports", "finance"]
    for ranked in output["classifications"]:
        scores = [entry["score"] for entry in ranked]
        assert scores == sorted(scores, reverse=True)
        assert len(ranked) == 3


async def test_every_lane_answers(running: System) -> None:
    # when
    for lane in ("critical", "high", "medium", "low"):
        await running.embed([f"lane-{lane}"], "text", lane=lane)

    # then
    await running.answered(
        [f"lane-{lane}" for lane in ("critical", "high", "medium", "low")], timeout_s=20
    )


async def test_a_binary_mode_cloudevent_is_accepted(running: System) -> None:
    # when
    await (
        await running.send_raw(
            "cortex.requests.high",
            b'{"texts":["in binary mode"]}',
            headers=[
                ("ce_specversion", b"1.0"),
                ("ce_id", b"binary-1"),
                ("ce_type", b"cortex.nlp.embed.v1"),
                ("ce_source", b"//tests"),
            ],
        )
    )

    # then
    outcome = await running.outcome("binary-1")
    assert outcome["type"] == "cortex.outcome.result.v1"


async def test_the_same_request_twice_has_one_logical_outcome(running: System) -> None:
    # when: the second spelling differs in nothing that is asked
    await (
        await running.send_raw(
            "cortex.requests.medium",
            b'{"id":"twice","type":"cortex.nlp.embed.v1","data":{"texts":["x"],"model":"minilm"}}',
        )
    )
    await (
        await running.send_raw(
            "cortex.requests.medium",
            b'{"data": {"model":"minilm", "texts":["x"]}, "type":"cortex.nlp.embed.v1","id":"twice"}',
        )
    )
    await running.answered(["twice"], timeout_s=20)
    await running.read_to_the_end()
    while len(running.outcomes["twice"]) < 2:
        await running.outcome("twice")
        await running.read_to_the_end()

    # then
    assert len({outcome["id"] for outcome in running.outcomes["twice"]}) == 1


async def test_a_request_whose_deadline_has_passed_is_answered_expired(running: System) -> None:
    # when
    await (
        await running.send(
            "late",
            "cortex.nlp.embed.v1",
            {"texts": ["too late"]},
            time="2020-01-01T00:00:00Z",
            deadlinems=50,
        )
    )

    # then
    outcome = await running.outcome("late")
    assert outcome["type"] == "cortex.outcome.expired.v1"
    assert outcome["data"]["error"]["code"] == "deadline_exceeded"


async def test_a_changed_document_makes_every_cache_forget_it(running: System) -> None:
    # when
    event = {
        "id": "e1",
        "type": "lake.document.changed.v1",
        "source": "//lake",
        "subject": "doc-9",
        "data": {"collection": "manuals", "document_id": "doc-9"},
    }
    await (await running.send_raw("cortex.events", orjson.dumps(event), key=b"doc-9"))
    while not running.records["cortex.invalidations"]:
        await running.read_to_the_end()

    # then
    [record] = running.records["cortex.invalidations"]
    invalidation = orjson.loads(record.value)
    assert invalidation["scope"] == "tag"
    assert invalidation["value"] == "document:manuals/doc-9"
    assert record.key == b"tag:document:manuals/doc-9"


async def test_the_pages_show_what_happened(running: System) -> None:
    # given
    await running.embed(["for-the-pages"], "text")
    await running.answered(["for-the-pages"], timeout_s=20)
    [worker] = running.workers

    # when
    pages = {path: worker.get(path) for path in ("/", "/status.json", "/livez", "/metrics")}
    absent = {
        path: worker.get(path)[0] for path in ("/assignment/", "/table/", "/graph/", "/stats/")
    }

    # then
    assert {path: status for path, (status, _) in pages.items()} == dict.fromkeys(pages, 200)
    status = orjson.loads(pages["/status.json"][1])
    assert status["models"][0]["name"] == "minilm"
    assert len(status["partitions"]) >= 16
    assert b"cortex_outcomes_total" in pages["/metrics"][1]
    assert absent == dict.fromkeys(absent, 404), "Faust's own pages must be off"
