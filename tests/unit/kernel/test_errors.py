from collections import Counter

import pytest

from cortex_stream import errors
from cortex_stream.errors import CortexError, Disposition, InvalidField, OperatorError, Refused

CLASSES = [
    member
    for member in vars(errors).values()
    if isinstance(member, type) and issubclass(member, CortexError)
]


def test_no_two_errors_share_a_code() -> None:
    repeated = [code for code, n in Counter(each.code for each in CLASSES).items() if n > 1]

    assert repeated == []


@pytest.mark.parametrize("error", CLASSES, ids=lambda each: each.__name__)
def test_the_class_decides_the_fate(error: type[CortexError]) -> None:
    if issubclass(error, Refused):
        assert error.disposition is Disposition.REJECT
    if issubclass(error, OperatorError):
        assert error.disposition is Disposition.FATAL
    assert isinstance(error("text").disposition, Disposition)


def test_an_error_names_its_field_and_an_operators_error_its_repair() -> None:
    assert InvalidField("wrong", field="data.texts[3]").field == "data.texts[3]"
    assert OperatorError("broken", repair="mend it").repair == "mend it"
