"""What a replay has changed: the answers of then beside those of now, as values, JSON and HTML."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, Final, Self

import jinja2
import numpy as np
import orjson

from cortex_stream.replay.answer import Answer
from cortex_stream.replay.collection import Collection
from cortex_stream.replay.compare import (
    EDGES,
    Cosines,
    Flips,
    Matrix,
    Overlap,
    Spread,
    cosines,
    flips,
    overlap,
    spread,
)
from cortex_stream.replay.gate import Check, decide_gate
from cortex_stream.replay.journal import Standing
from schemas.outcomes import OutcomeKind

_OVERLAP_TEXTS: Final = 2_000  # all pairs of them: 32 MB of products, 2 s


@dataclass(frozen=True, slots=True)
class Side:
    """What one side's answers took. `model_ms` is the time in stages that run models."""

    models: Mapping[str, int]
    total_ms: Spread | None
    model_ms: Spread | None
    model_ms_per_1000_tokens: float | None


@dataclass(frozen=True, slots=True)
class Embeddings:
    """How the vectors differ; without `cosines`, `why_no_cosines` says why there are none."""

    texts: int
    dims_then: int
    dims_now: int
    cosines: Cosines | None
    why_no_cosines: str | None
    overlap: Overlap | None


@dataclass(frozen=True, slots=True)
class Report:
    """The whole report; every figure of it is in the JSON form.

    Attributes:
        records: requests that were put back, each counted once.
        missing: those without any outcome when the report was made.
        outcomes: how the others ended.
        failures: error codes of those without an answer.
        sampled: whether only some were compared, those with the smallest outcome ids.
        compared: requests with an answer then and now.
        newly_failed: of those looked at, with an answer then, and another end now.
        unknown_then: of those looked at, without a kept answer of then.
        expired_offsets: offsets of the source that are kept no longer, so that they miss here.
        too_large: records that were left out, since they have no room for our header.
        gate: what had to hold for a cut-over; empty where none was asked for.
    """

    replay_id: str
    plan: Mapping[str, Any]
    records: int
    missing: int
    outcomes: Mapping[OutcomeKind, int]
    failures: Mapping[str, int]
    sampled: bool
    looked_at: int
    compared: int
    newly_failed: int
    unknown_then: int
    expired_offsets: int
    too_large: int
    then: Side
    now: Side
    embeddings: Embeddings | None
    labels: Flips | None
    gate: tuple[Check, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether a gate was asked for, and everything in it holds."""
        return bool(self.gate) and all(check.passed for check in self.gate)

    def judged(self, bounds: Mapping[str, float]) -> Self:
        """Return the report with its gate: every figure that there should be beside its bound."""
        return replace(self, gate=decide_gate(self._figures(), bounds))

    def _figures(self) -> dict[str, float | None]:
        wanted = self.plan["model"]
        others = sum(count for model, count in self.then.models.items() if model != wanted)
        found: dict[str, float | None] = {
            # What this very version answered then says nothing about it.
            "compared": min(others, self.now.models.get(wanted, 0)),
            # Of all requests, and of those looked at: the others' answers of then are not read.
            "failed": self.missing + self.newly_failed,
            "latency": _ratio(self.now.model_ms, self.then.model_ms),
        }
        if self.embeddings is not None:
            angles, near = self.embeddings.cosines, self.embeddings.overlap
            found["mean-cosine"] = None if angles is None else angles.mean
            found["least-cosine"] = None if angles is None else angles.least
            found["neighbours"] = None if near is None else near.mean
        if self.labels is not None:
            found["flips"] = self.labels.share
        return found

    def to_json(self) -> bytes:
        """Return the report as indented JSON."""
        return orjson.dumps(self, option=orjson.OPT_INDENT_2 | orjson.OPT_NON_STR_KEYS)

    def to_html(self) -> str:
        """Return the report as one page without scripts, pictures or anything from elsewhere."""
        environment = jinja2.Environment(
            loader=jinja2.PackageLoader("cortex_stream.replay", "templates"),
            autoescape=True,
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        bins = [f"{low:g} to {high:g}" for low, high in pairwise(EDGES)]
        return environment.get_template("report.html").render(report=self, bins=bins)


def make_report(standing: Standing, found: Collection) -> Report:
    """Return what `found` says about the replay."""
    looked_at = sorted(found.pairs.items())
    both = [
        (found.then[then], found.now[now])
        for now, then in looked_at
        if then in found.then
        and now in found.now
        and found.then[then].answered
        and found.now[now].answered
    ]
    answered_then = [
        now for now, then in looked_at if then in found.then and found.then[then].answered
    ]
    records = found.tally.expected()
    outcomes, failures = Counter(dict.fromkeys(OutcomeKind, 0)), Counter[str]()
    for (kind, code), requests in found.tally.ends().items():
        outcomes[kind] += requests
        if code is not None and requests:
            failures[code] += requests
    return Report(
        replay_id=standing.replay_id,
        plan=standing.plan.model_dump(mode="json"),
        records=records,
        missing=found.tally.missing(),
        outcomes=outcomes,
        failures=failures,
        sampled=len(looked_at) < records,
        looked_at=len(looked_at),
        compared=len(both),
        newly_failed=sum(now in found.now and not found.now[now].answered for now in answered_then),
        unknown_then=sum(then not in found.then for _, then in looked_at),
        expired_offsets=found.expired_offsets,
        too_large=found.too_large,
        then=_side([then for then, _ in both]),
        now=_side([now for _, now in both]),
        embeddings=_embeddings(both),
        labels=_labels(both),
    )


def _side(answers: Sequence[Answer]) -> Side:
    tokens = sum(answer.tokens for answer in answers)
    model_ms = sum(answer.model_ms for answer in answers)
    return Side(
        models=Counter(answer.model or "none" for answer in answers),
        total_ms=spread([answer.total_ms for answer in answers]),
        model_ms=spread([answer.model_ms for answer in answers]),
        model_ms_per_1000_tokens=1000 * model_ms / tokens if tokens else None,
    )


def _ratio(now: Spread | None, then: Spread | None) -> float | None:
    return now.mean / then.mean if now is not None and then is not None and then.mean else None


def _embeddings(both: Sequence[tuple[Answer, Answer]]) -> Embeddings | None:
    """Compare the vectors; where several widths meet, those of the commonest pair of widths."""
    pairs = [
        (then.vectors, now.vectors)
        for then, now in both
        if then.vectors is not None
        and now.vectors is not None
        and len(then.vectors) == len(now.vectors)
    ]
    if not pairs:
        return None
    widths = Counter((then.shape[1], now.shape[1]) for then, now in pairs)
    dims_then, dims_now = widths.most_common(1)[0][0]
    chosen = [
        pair for pair in pairs if (pair[0].shape[1], pair[1].shape[1]) == (dims_then, dims_now)
    ]
    then_rows, now_rows = (_stacked([pair[side] for pair in chosen]) for side in (0, 1))
    alike = dims_then == dims_now
    return Embeddings(
        texts=len(then_rows),
        dims_then=dims_then,
        dims_now=dims_now,
        cosines=cosines(then_rows, now_rows) if alike else None,
        why_no_cosines=(
            None
            if alike
            else f"vectors of {dims_then} and of {dims_now} numbers have no angle between them;"
            " the overlap of neighbours says what a search would find"
        ),
        overlap=overlap(then_rows[:_OVERLAP_TEXTS], now_rows[:_OVERLAP_TEXTS]),
    )


def _labels(both: Sequence[tuple[Answer, Answer]]) -> Flips | None:
    pairs = [
        pair
        for then, now in both
        if then.labels is not None and now.labels is not None
        for pair in zip(then.labels, now.labels, strict=False)
    ]
    return flips(pairs) if pairs else None


def _stacked(parts: Sequence[Matrix]) -> Matrix:
    return np.concatenate(parts)
