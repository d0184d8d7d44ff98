from cortex_stream.loadtest.corpus import paragraphs, prose, repeated, short_texts


def test_paragraphs_are_many_different_lines_in_a_stable_order() -> None:
    texts = paragraphs()

    assert len(texts) > 1500
    assert len(set(texts)) == len(texts)
    assert all(text and text == " ".join(text.split()) for text in texts)
    assert texts == paragraphs()


def test_short_texts_are_shorter_than_paragraphs() -> None:
    texts = short_texts()

    assert len(texts) > 1000
    assert all(20 <= len(text) < 100 for text in texts)


def test_prose_is_made_of_whole_sentences() -> None:
    texts = prose()

    assert len(texts) > 300
    assert set(texts) <= set(paragraphs())
    assert all(text[0].isupper() and text.endswith(".") for text in texts)


def test_copies_differ_so_that_no_cache_helps() -> None:
    texts = repeated(["a", "b"], copies=3)

    assert texts == ["a", "b", "a (1)", "b (1)", "a (2)", "b (2)"]
