from pathlib import Path

import numpy as np
import pytest

from cortex_stream.errors import ModelLoadFailed
from cortex_stream.inference.tokenizer import TextTokenizer
from cortex_stream.testing.stub_runner import stub_tokenizer


def test_each_text_becomes_a_row_between_its_special_tokens() -> None:
    first, second = stub_tokenizer().encode(["ab", "a"])

    assert first.ids.tolist()[:2] == second.ids.tolist()[:2]
    assert (first.tokens, second.tokens) == (4, 3)
    assert first.ids.dtype == np.int64
    assert not first.truncated


def test_a_text_is_cut_at_the_limit_and_says_so() -> None:
    tokenizer = stub_tokenizer(max_tokens=10)

    fits, cut = tokenizer.encode(["x" * 8, "x" * 9])

    assert (fits.tokens, fits.truncated) == (10, False)
    assert (cut.tokens, cut.truncated) == (10, True)
    assert cut.ids[-1] == fits.ids[-1]  # the last special token stays


def test_a_prefix_goes_before_every_text() -> None:
    tokenizer = stub_tokenizer()

    with_prefix = tokenizer.encode(["a", "b"], prefix="query: ")

    written_out = tokenizer.encode(["query: a", "query: b"])
    assert [row.ids.tolist() for row in with_prefix] == [row.ids.tolist() for row in written_out]


def test_padding_and_truncation_of_the_file_are_overruled(tmp_path: Path) -> None:
    shipped = stub_tokenizer()._tokenizer
    shipped.enable_padding(length=128)
    shipped.enable_truncation(5)
    shipped.save(str(tmp_path / "tokenizer.json"))

    tokenizer = TextTokenizer.from_file(tmp_path / "tokenizer.json", max_tokens=64)

    assert [row.tokens for row in tokenizer.encode(["a" * 20, "a"])] == [22, 3]


@pytest.mark.parametrize("content", [b"", b"{}", b"\xff\x00"])
def test_a_file_that_is_no_tokenizer_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_bytes(content)

    with pytest.raises(ModelLoadFailed, match=r"tokenizer\.json"):
        TextTokenizer.from_file(path, max_tokens=64)
