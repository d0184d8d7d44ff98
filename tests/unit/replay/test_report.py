"""A report from both sides' answers: what is compared, what is said, how it is written."""

from dataclasses import replace

import numpy as np
import orjson

from cortex_stream.replay.answer import Answer
from cortex_stream.replay.collection import Collection
from cortex_stream.replay.gate import parse_gate
from cortex_stream.replay.journal import Standing
from cortex_stream.replay.report import Report, make_report
from schemas.outcomes import OutcomeKind
from tests.unit.replay.test_plan import NOW_MS, a_plan

STANDING = Standing("r", a_plan(model="m@2"), {}, {}, NOW_MS, 0.0)
EMBEDDED = Answer(
    kind=OutcomeKind.RESULT,
    code=None,
    model="m@1",
    vectors=np.eye(4, dtype=np.float32)[:1],
    labels=None,
    total_ms=10.0,
    model_ms=2.0,
    tokens=4,
)
LABELLED = replace(EMBEDDED, vectors=None, labels=("x",))
FAILED = replace(EMBEDDED, kind=OutcomeKind.DEAD_LETTER, code="stuck_run", vectors=None)


def collected(*sides: tuple[Answer | None, Answer | None]) -> Collection:
    """Return what is known of requests, each with an answer then and now or None."""
    found = Collection("r")
    for number, (then, now) in enumerate(sides):
        now_id, then_id = f"{number:016x}{0:016x}", f"{number + 1000:016x}{0:016x}"
        found.pairs[now_id] = then_id
        found.tally.expect(now_id)
        if then is not None:
            found.then[then_id] = then
        if now is not None:
            found.now[now_id] = now
            found.tally.see(now_id, now.kind, now.code)
    return found


def test_requests_are_counted_by_what_is_known_of_them() -> None:
    report = make_report(
        STANDING,
        collected(
            (EMBEDDED, EMBEDDED),
            (EMBEDDED, FAILED),
            (FAILED, FAILED),
            (None, EMBEDDED),
            (EMBEDDED, None),
        ),
    )

    assert (report.records, report.missing, report.compared) == (5, 1, 1)
    assert (report.newly_failed, report.unknown_then, report.sampled) == (1, 1, False)
    assert report.outcomes[OutcomeKind.DEAD_LETTER] == 2
    assert report.failures == {"stuck_run": 2}


def test_vectors_of_one_width_are_compared_by_angle_and_by_neighbours() -> None:
    now = replace(EMBEDDED, model="m@2", total_ms=20.0, model_ms=3.0)

    report = make_report(STANDING, collected(*[(EMBEDDED, now)] * 3))

    assert report.embeddings is not None
    assert report.embeddings.cosines is not None
    assert (report.embeddings.cosines.least, report.embeddings.texts) == (1.0, 3)
    assert report.embeddings.overlap is not None
    assert report.embeddings.overlap.mean == 1.0
    assert (report.then.models, report.now.models) == ({"m@1": 3}, {"m@2": 3})
    assert report.now.total_ms is not None
    assert report.now.total_ms.p50 == 20.0
    assert report.now.model_ms_per_1000_tokens == 750.0


def test_vectors_of_two_widths_have_no_cosines_and_the_report_says_why() -> None:
    wider = replace(EMBEDDED, vectors=np.ones((1, 6), np.float32))

    report = make_report(STANDING, collected((EMBEDDED, wider), (EMBEDDED, wider)))

    assert report.embeddings is not None
    assert report.embeddings.cosines is None
    assert "vectors of 4 and of 6 numbers" in str(report.embeddings.why_no_cosines)
    assert report.embeddings.overlap is not None
    assert "No cosines: vectors of 4 and of 6 numbers" in report.to_html()


def test_the_commonest_pair_of_widths_is_compared_where_several_meet() -> None:
    wider = replace(EMBEDDED, vectors=np.ones((1, 6), np.float32))

    report = make_report(
        STANDING, collected((EMBEDDED, wider), (EMBEDDED, EMBEDDED), (EMBEDDED, EMBEDDED))
    )

    assert report.embeddings is not None
    assert (report.embeddings.dims_now, report.embeddings.texts) == (4, 2)


def test_another_best_label_is_a_flip() -> None:
    report = make_report(
        STANDING, collected((LABELLED, LABELLED), (LABELLED, replace(LABELLED, labels=("y",))))
    )

    assert report.labels is not None
    assert (report.labels.share, report.labels.moves) == (0.5, (("x", "y", 1),))
    assert report.embeddings is None


def test_the_page_has_no_script_and_escapes_what_others_wrote() -> None:
    hostile = replace(LABELLED, labels=("<script>alert(1)</script>",))

    page = make_report(STANDING, collected((LABELLED, hostile))).to_html()

    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert "http" not in page.replace("http-equiv", "")


def test_the_json_form_has_every_figure() -> None:
    report = make_report(STANDING, collected((EMBEDDED, EMBEDDED), (LABELLED, LABELLED)))

    found = orjson.loads(report.to_json())

    assert found["outcomes"] == {"result": 2, "rejected": 0, "expired": 0, "dead_letter": 0}
    assert found["embeddings"]["cosines"]["p01"] == 1.0
    assert found["labels"]["share"] == 0.0
    assert found["plan"]["model"] == "m@2"


def test_a_report_about_nothing_can_be_shown() -> None:
    report = make_report(STANDING, collected((None, None)))

    assert report.embeddings is None
    assert report.labels is None
    assert "without any outcome" in report.to_html()


def test_records_that_were_left_out_are_told() -> None:
    found = collected((EMBEDDED, EMBEDDED))
    assert "too large" not in make_report(STANDING, found).to_html()

    found.too_large = 2

    report = make_report(STANDING, found)
    assert (report.records, report.too_large) == (1, 2)
    assert "2 records are too large to be put back" in report.to_html()


def gate_of(report: Report, *texts: str) -> dict[str, bool]:
    return {check.name: check.passed for check in report.judged(parse_gate(texts)).gate}


def test_a_gate_judges_vectors_where_there_are_vectors_and_labels_where_there_are_labels() -> None:
    now, labels_now = replace(EMBEDDED, model="m@2"), replace(LABELLED, model="m@2")

    vectors = make_report(STANDING, collected(*[(EMBEDDED, now)] * 3))
    labels = make_report(STANDING, collected(*[(LABELLED, labels_now)] * 3))

    assert gate_of(vectors, "compared=3") == dict.fromkeys(
        ("compared", "failed", "mean-cosine", "least-cosine", "neighbours", "latency"), True
    )
    assert vectors.judged(parse_gate(["compared=3"])).passed
    assert gate_of(labels) == {"compared": False, "failed": True, "flips": True, "latency": True}
    assert not labels.judged(parse_gate(())).passed


def test_what_the_new_version_had_answered_itself_proves_nothing() -> None:
    own = replace(EMBEDDED, model="m@2")

    report = make_report(STANDING, collected((EMBEDDED, own), (own, own), (own, own)))

    assert not gate_of(report, "compared=2")["compared"]


def test_a_version_of_another_width_never_passes() -> None:
    now = replace(EMBEDDED, model="m@2", vectors=np.ones((1, 8), np.float32))

    gate = gate_of(
        make_report(STANDING, collected(*[(EMBEDDED, now)] * 3)),
        "compared=0", "mean-cosine=-1", "least-cosine=-1",
    )  # fmt: skip

    assert (gate["mean-cosine"], gate["least-cosine"]) == (False, False)


def test_a_request_that_fails_now_or_has_no_outcome_closes_the_gate() -> None:
    now = replace(EMBEDDED, model="m@2")

    failed = make_report(STANDING, collected((EMBEDDED, now), (EMBEDDED, FAILED)))
    missing = make_report(STANDING, collected((EMBEDDED, now), (EMBEDDED, None)))

    assert not gate_of(failed)["failed"]
    assert not gate_of(missing)["failed"]
    assert "failed" in failed.judged(parse_gate(())).to_html()


def test_a_report_that_nobody_judged_has_no_gate_and_did_not_pass() -> None:
    report = make_report(STANDING, collected((EMBEDDED, EMBEDDED)))

    assert not report.passed
    assert "The gate" not in report.to_html()
