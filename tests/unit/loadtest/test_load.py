import orjson

from cortex_stream.loadtest.load import classify_requests, embed_requests, request_value
from schemas.priority import Lane
from schemas.requests import ClassifyRequest, EmbedRequest


def test_requests_are_what_the_contract_says() -> None:
    (embed,) = embed_requests(["hello"], run="r", seed=1)
    (classify,) = classify_requests(["hello"], labels=["a", "b"], run="r", seed=1)

    assert EmbedRequest.model_validate_json(embed.value).data.texts == ["hello"]
    assert ClassifyRequest.model_validate_json(classify.value).data.labels == ["a", "b"]
    assert {embed.request_id, classify.request_id} == {"r-0", "r-c0"}


def test_attributes_that_are_none_are_left_out() -> None:
    value = request_value(
        request_id="1", request_type="t", data={}, attributes={"subject": None, "source": "s"}
    )

    assert orjson.loads(value) == {
        "specversion": "1.0",
        "id": "1",
        "type": "t",
        "source": "s",
        "data": {},
    }


def test_equal_seeds_give_equal_requests_in_the_asked_mix() -> None:
    texts = [f"text {index}" for index in range(2000)]
    mix = {Lane.CRITICAL: 0.25, Lane.LOW: 0.75}

    requests = embed_requests(texts, run="r", seed=5, mix=mix)

    assert requests == embed_requests(texts, run="r", seed=5, mix=mix)
    assert requests != embed_requests(texts, run="r", seed=6, mix=mix)
    critical = sum(request.lane is Lane.CRITICAL for request in requests)
    assert 400 < critical < 600
    assert {request.lane for request in requests} == {Lane.CRITICAL, Lane.LOW}
