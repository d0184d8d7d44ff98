import uuid
from base64 import urlsafe_b64decode

from hypothesis import example, given
from hypothesis import strategies as st

from cortex_stream.devstack.kafka import encode_cluster_id


@example(uuid.UUID("fb000000-0000-4000-8000-000000000000"))  # would be `-wAAA…`
@example(uuid.UUID("ffffffff-ffff-4fff-bfff-ffffffffffff"))
@given(st.uuids(version=4))
def test_no_cluster_id_looks_like_an_option(drawn: uuid.UUID) -> None:
    cluster_id = encode_cluster_id(drawn)

    assert not cluster_id.startswith("-")
    assert len(urlsafe_b64decode(cluster_id + "==")) == 16
