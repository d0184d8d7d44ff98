from pathlib import Path

import jsonschema
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from cortex_stream.errors import OperatorError
from cortex_stream.routing.pipeline import BUILT_IN, REALTIME, STANDARD
from cortex_stream.routing.pipeline_file import _line, parse_pipelines, pipelines_schema
from cortex_stream.routing.route import StageName
from schemas.priority import Lane
from schemas.requests import CLASSIFY, EMBED

EXAMPLE = Path(__file__).parents[3] / "docs" / "operations" / "pipelines.example.yaml"

ONE = """\
version: 1
pipelines:
  - name: own
    types: [cortex.nlp.embed.v1]
    stages: [{name: embedding}]
"""
STANDARD_TEXT = """\
version: 1
pipelines:
  - name: standard
    types: [cortex.nlp.embed.v1, cortex.nlp.classify.v1]
    stages: [{name: embedding}, {name: inference}]
    max_concurrent: 5
  - name: own
    types: [cortex.nlp.embed.v1]
    stages: [{name: embedding}]
"""


def problems(text: str) -> str:
    with pytest.raises(OperatorError) as refused:
        parse_pipelines(text, path="p.yaml")
    return str(refused.value)


def test_a_pipeline_of_the_file_comes_before_the_built_in_ones() -> None:
    own, *rest = parse_pipelines(ONE, path="p.yaml")

    assert (own.name, own.stages) == ("own", (StageName.EMBEDDING,))
    assert own.types == frozenset({EMBED})
    assert rest == list(BUILT_IN)


def test_a_pipeline_allows_100_at_once_and_30_s_a_stage_unless_it_says_otherwise() -> None:
    own = parse_pipelines(ONE, path="p.yaml")[0]
    free = parse_pipelines(
        ONE.replace("{name: embedding}", "{name: embedding, timeout_s: null}")
        + "    max_concurrent: null\n",
        path="p.yaml",
    )[0]

    assert (own.max_concurrent, own.timeouts_s) == (100, {StageName.EMBEDDING: 30.0})
    assert (free.max_concurrent, free.timeouts_s) == (None, {})
    assert own.where == "p.yaml:3"


def test_standard_comes_last_wherever_it_stands_and_the_file_may_define_it_anew() -> None:
    found = parse_pipelines(STANDARD_TEXT, path="p.yaml")

    assert [each.name for each in found] == ["own", "realtime", "standard"]
    assert found[1] is REALTIME
    assert (found[2].max_concurrent, STANDARD.max_concurrent) == (5, None)


def test_the_example_is_a_pipelines_file() -> None:
    urgent, bulk = parse_pipelines(EXAMPLE.read_text(encoding="utf-8"), path="example")[:2]

    assert urgent.lanes == frozenset({Lane.CRITICAL, Lane.HIGH})
    assert urgent.types == frozenset({CLASSIFY})
    assert urgent.timeouts_s == {StageName.EMBEDDING: 5.0, StageName.INFERENCE: 2.0}
    assert bulk.tenants == frozenset({"//archive"})


def test_the_schema_accepts_the_example_and_refuses_a_misspelt_field() -> None:
    example = yaml.safe_load(EXAMPLE.read_text(encoding="utf-8"))

    jsonschema.validate(example, pipelines_schema())
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**example, "pipeline": []}, pipelines_schema())


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("", "p.yaml:1: the whole file: Input should be a valid dictionary"),
        ("version: 1\npipelines: []\n", "p.yaml:2: pipelines: List should have at least 1"),
        ("a: [", "is not YAML"),
        (ONE.replace("version: 1", "version: 2"), "p.yaml:1: version: Input should be 1"),
        (ONE + "    modle: x\n", "p.yaml:6: pipelines[0].modle: Extra inputs are not permitted"),
        (ONE + "    name: again\n", "p.yaml:6: pipelines[0].name: stands twice; keep one"),
        (ONE.replace("- name: own", "- title: own"), "p.yaml:3: pipelines[0].name: Field required"),
        (
            ONE.replace("{name: embedding}", "{name: validation}"),
            "p.yaml:5: pipelines[0].stages[0].name: Input should be 'embedding' or 'inference'",
        ),
        (
            ONE.replace("embed.v1]", "embed.v1, cortex.nlp.sing.v1]"),
            "p.yaml:4: pipelines[0].types[1]: no such type 'cortex.nlp.sing.v1'; there are",
        ),
        (
            ONE.replace("embed.v1]", "embed.v1, cortex.nlp.embed.v1]"),
            "p.yaml:4: pipelines[0].types[1]: repeats 'cortex.nlp.embed.v1'; leave it out",
        ),
        (
            ONE.replace("embed.v1]", "classify.v1]"),
            "p.yaml:5: pipelines[0].stages: cortex.nlp.classify.v1 needs stage inference; add it",
        ),
        (
            ONE.replace("[{name: embedding}]", "[{name: embedding}, {name: embedding}]"),
            "p.yaml:5: pipelines[0].stages: a stage stands twice; list each once",
        ),
        (
            ONE.replace("embed.v1]", "classify.v1]").replace(
                "[{name: embedding}]", "[{name: inference}, {name: embedding}]"
            ),
            "p.yaml:5: pipelines[0].stages: wrong order; list them as embedding, inference",
        ),
        (
            ONE.replace("[{name: embedding}]", "[{name: embedding}, {name: inference}]"),
            "p.yaml:5: pipelines[0].stages[1]: none of the types runs inference; leave it out",
        ),
        (
            ONE + ONE.partition("pipelines:\n")[2],
            "p.yaml:6: pipelines[1].name: repeats the name 'own'; give each its own",
        ),
        (
            ONE + ONE.partition("pipelines:\n")[2].replace("own", "other"),
            "p.yaml:6: pipelines[1]: is never reached: 'own' above answers the same",
        ),
        (
            ONE.replace("own", "standard"),
            "p.yaml:3: pipelines[0].name: 'standard' answers what no other does",
        ),
    ],
)
def test_a_problem_is_named_by_line_and_field_with_what_to_change(text: str, what: str) -> None:
    assert what in problems(text)


def test_a_place_deeper_than_the_file_is_on_the_line_of_what_is_there() -> None:
    assert _line(yaml.compose("a: 1\nb: x", Loader=yaml.SafeLoader), ("b", 0, "c")) == 2


def test_every_problem_is_named_at_once() -> None:
    text = ONE.replace("embed.v1", "sing.v1") + "    max_concurrent: 0\n    tenants: []\n"

    assert problems(text).count("p.yaml:") == 2


def test_an_alias_is_looked_at_once_however_often_it_stands() -> None:
    bomb = "a: &a [x]\n" + "".join(
        f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]\n"
        for before, name in zip("abcdefgh", "bcdefghi", strict=True)
    )

    assert "Extra inputs are not permitted" in problems(bomb)


@given(st.text(max_size=200))
def test_no_text_is_worse_than_refused(text: str) -> None:
    try:
        parse_pipelines(text, path="p.yaml")
    except OperatorError as error:
        assert "p.yaml" in str(error)  # noqa: PT017 (most texts are refused, not all must be)
