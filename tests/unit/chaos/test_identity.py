"""The rule for outcome ids, applied by the checker and by the worker, gives the same."""

import hashlib
import json

import pytest

from cortex_stream.delivery.identity import outcome_id, unreadable_outcome_id
from cortex_stream.engine.validate import payload_digest
from tests.chaos.evidence import Record
from tests.chaos.identity import expected_outcome_id


@pytest.mark.parametrize(
    "data",
    [{"texts": ["é\n\u2028"], "model": "x"}, {"b": [1, {"z": 2, "a": None}], "a": True}, None],
)
def test_an_id_of_type_and_data(data: object) -> None:
    event = {"source": "//s", "data": data, "type": "t", "id": "1"}
    record = Record("cortex.requests.low", 1, 2, 0, None, json.dumps(event).encode())

    expected = expected_outcome_id(record, prefix="p", identity="data", request_id="1")

    digest = payload_digest("t", data)
    assert expected == outcome_id(
        source="//s", request_id="1", payload_digest=digest, replay_id=None
    )


def test_an_id_of_a_binary_request() -> None:
    headers = (("ce_id", b"1"), ("ce_type", b"t"), ("other", b"x"))
    record = Record("cortex.requests.low", 1, 2, 0, None, b'{"texts":["a"]}', headers)

    expected = expected_outcome_id(record, prefix="p", identity="data", request_id="1")

    digest = payload_digest("t", {"texts": ["a"]})
    assert expected == outcome_id(
        source="//unknown", request_id="1", payload_digest=digest, replay_id=None
    )


def test_an_id_of_the_bytes_and_one_of_the_place() -> None:
    record = Record("cortex.requests.low", 1, 2, 0, None, b"junk")

    of_bytes = expected_outcome_id(record, prefix="p", identity="bytes", request_id="1")
    of_place = expected_outcome_id(record, prefix="p", identity="place", request_id=None)

    digest = hashlib.sha256(b"junk").digest()
    assert of_bytes == outcome_id(
        source="//unknown", request_id="1", payload_digest=digest, replay_id=None
    )
    assert of_place == unreadable_outcome_id(topic="p.cortex.requests.low", partition=1, offset=2)
