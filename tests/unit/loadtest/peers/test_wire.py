import numpy as np

from cortex_stream.loadtest.ledger import vectors_of
from cortex_stream.loadtest.peers.wire import answer_to, texts_of

REQUEST = {"id": "r-1", "type": "x", "data": {"texts": ["one", "two"]}}


def test_an_answer_names_its_request_and_holds_a_vector_per_text() -> None:
    vectors = np.array([[1, 0, 0.5], [0, 1, -0.25]], np.float32)

    answer = answer_to(REQUEST, vectors)

    assert texts_of(REQUEST) == ["one", "two"]
    assert answer["subject"] == answer["data"]["request_id"] == "r-1"
    np.testing.assert_array_equal(vectors_of(answer["data"]["output"]), vectors)
