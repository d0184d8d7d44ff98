import pytest

from cortex_stream.dead_letters.mend import mended
from cortex_stream.errors import InvalidField, InvalidJson, UnknownType
from tests.unit.dead_letters.letters import LIMITS, letter

BROKEN = b'{"id":"r1","type":"cortex.nlp.embed.v1","data":{"texts":[]}}'
MENDED = b'{"id":"r1","type":"cortex.nlp.embed.v1","tenant":"acme","data":{"texts":["a"]}}'


def test_a_valid_payload_takes_the_place_of_the_broken_one_and_nothing_else_changes() -> None:
    broken = letter(BROKEN, headers=[("a", b"1")])

    whole = mended(broken, MENDED, limits=LIMITS)

    assert (whole.value, whole.size_bytes) == (MENDED, len(MENDED))
    assert (whole.key, whole.headers, whole.place) == (broken.key, broken.headers, broken.place)
    assert whole.asked.tenant == "acme"


def test_the_first_wrong_field_is_named_as_the_engine_names_it() -> None:
    with pytest.raises(InvalidField, match=r"data\.texts\[1\]") as refused:
        mended(letter(BROKEN), MENDED.replace(b'["a"]', b'["a",7]'), limits=LIMITS)

    assert refused.value.field == "data.texts[1]"


def test_what_is_no_json_or_no_request_is_refused() -> None:
    with pytest.raises(InvalidJson):
        mended(letter(BROKEN), b"{", limits=LIMITS)
    with pytest.raises(UnknownType):
        mended(letter(BROKEN), MENDED.replace(b"embed", b"sing"), limits=LIMITS)


def test_attributes_in_headers_count_for_the_mended_payload() -> None:
    binary = letter(b"{}", headers=[("ce_id", b"r2"), ("ce_type", b"cortex.nlp.embed.v1")])

    assert mended(binary, b'{"texts":["a"]}', limits=LIMITS).asked.request_id == "r2"
