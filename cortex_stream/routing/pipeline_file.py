"""The pipelines file: YAML to pipelines, or every problem with its line and field."""

from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Final, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from cortex_stream.errors import OperatorError
from cortex_stream.routing.pipeline import (
    BUILT_IN,
    DEFAULT_MAX_CONCURRENT,
    DEFAULT_TIMEOUT_S,
    STANDARD,
    STANDARD_NAME,
    Pipeline,
)
from cortex_stream.routing.route import StageName
from schemas.contract import Identifier
from schemas.priority import Lane, Priority
from schemas.requests import CLASSIFY, DATA_BY_TYPE, EMBED, ModelReference

_NEEDED_STAGE: Final = {EMBED: StageName.EMBEDDING, CLASSIFY: StageName.INFERENCE}
"""Without it no model can answer the type."""
_USED_STAGES: Final = {
    EMBED: {StageName.EMBEDDING},
    CLASSIFY: {StageName.EMBEDDING, StageName.INFERENCE},
}

Place = tuple[int | str, ...]
Problem = tuple[Place, str]


class _Entry(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class StageEntry(_Entry):
    """One stage of a pipeline."""

    name: StageName = Field(strict=False, description="Validation comes first and is not listed.")
    timeout_s: float | None = Field(
        DEFAULT_TIMEOUT_S,
        gt=0,
        description="One try may take this long in the stage, waiting included; null: no limit.",
    )


class PipelineEntry(_Entry):
    """One pipeline: which requests it answers, and how."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]{0,63}$")
    types: list[str] = Field(min_length=1, description="Request types that it answers.")
    priorities: list[Annotated[Priority, Field(strict=False)]] | None = Field(
        None, min_length=1, description="Only requests of these priorities; null: of all."
    )
    tenants: list[Identifier] | None = Field(
        None, min_length=1, description="Only requests of these tenants; null: of everybody."
    )
    stages: list[StageEntry] = Field(min_length=1, description="In the order in which they run.")
    model: ModelReference | None = Field(
        None, description="Answers requests that name none; null: CORTEX_MODELS__EMBED_DEFAULT."
    )
    max_concurrent: int | None = Field(
        DEFAULT_MAX_CONCURRENT,
        ge=1,
        description="Work items of one lane in its stages at once, in each worker; null: no limit.",
    )


class PipelinesFile(_Entry):
    """The whole file. The first pipeline that fits a request answers it; the built-in ones follow."""

    version: Literal[1]
    pipelines: list[PipelineEntry] = Field(min_length=1)


def pipelines_schema() -> dict[str, Any]:
    """Return the JSON Schema of the file, for editors that check while one writes."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": "urn:cortex-stream:pipelines:v1",
        **PipelinesFile.model_json_schema(),
    }


def parse_pipelines(text: str, *, path: str) -> tuple[Pipeline, ...]:
    """Return the pipelines of a file, then the built-in ones that it does not define itself.

    Raises:
        OperatorError: names every problem as `path:line: field: what to change`.
    """
    try:
        tree = yaml.compose(text, Loader=yaml.SafeLoader)
        content = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise OperatorError(f"reading {path}: it is not YAML: {error}") from error
    problems = list(_repeated_keys(tree, (), set()))
    if not problems:
        try:
            file = PipelinesFile.model_validate(content)
        except ValidationError as error:
            problems = [(each["loc"], each["msg"]) for each in error.errors(include_url=False)]
        else:
            pipelines = _pipelines(file, path, tree)
            problems = list(_problems(file, pipelines))
            if not problems:
                return pipelines
    lines = [f"  {path}:{_line(tree, place)}: {_field(place)}: {what}" for place, what in problems]
    raise OperatorError(
        "reading the pipelines:\n" + "\n".join(lines),
        repair="docs/operations/pipelines.md explains every field",
    )


def _pipelines(file: PipelinesFile, path: str, tree: yaml.Node | None) -> tuple[Pipeline, ...]:
    own = [
        Pipeline(
            name=entry.name,
            types=frozenset(entry.types),
            stages=tuple(stage.name for stage in entry.stages),
            lanes=(
                None
                if entry.priorities is None
                else frozenset(Lane(each.value) for each in entry.priorities)
            ),
            tenants=None if entry.tenants is None else frozenset(entry.tenants),
            model=entry.model,
            timeouts_s={
                stage.name: stage.timeout_s for stage in entry.stages if stage.timeout_s is not None
            },
            max_concurrent=entry.max_concurrent,
            where=f"{path}:{_line(tree, ('pipelines', index))}",
        )
        for index, entry in enumerate(file.pipelines)
    ]
    # Whatever its place in the file, `standard` answers what is left.
    own.sort(key=lambda pipeline: pipeline.name == STANDARD_NAME)
    names = {pipeline.name for pipeline in own}
    missing = [pipeline for pipeline in BUILT_IN if pipeline.name not in names]
    *first, last = own
    return (*first, *missing, last) if last.name == STANDARD_NAME else (*own, *missing)


def _problems(file: PipelinesFile, pipelines: Sequence[Pipeline]) -> Iterator[Problem]:
    """Yield what is wrong although each field is of its type."""
    names = [entry.name for entry in file.pipelines]
    by_name = {pipeline.name: pipeline for pipeline in pipelines}
    for index, entry in enumerate(file.pipelines):
        at: Place = ("pipelines", index)
        if entry.name in names[:index]:
            yield (*at, "name"), f"repeats the name {entry.name!r}; give each its own"
            continue
        yield from _wrong_lists(entry, at)
        yield from _wrong_types_and_stages(entry, at)
        if entry.name == STANDARD_NAME and not by_name[entry.name].hides(STANDARD):
            types = ", ".join(DATA_BY_TYPE)
            what = (
                "answers what no other does: leave out priorities and tenants, and list every type"
            )
            yield (*at, "name"), f"{STANDARD_NAME!r} {what}: {types}"
        for earlier in names[:index]:
            if earlier != STANDARD_NAME and by_name[earlier].hides(by_name[entry.name]):
                yield (
                    at,
                    f"is never reached: {earlier!r} above answers the same; put this one first",
                )


def _wrong_lists(entry: PipelineEntry, at: Place) -> Iterator[Problem]:
    for name in ("types", "priorities", "tenants"):
        values = getattr(entry, name) or ()
        for index, value in enumerate(values):
            if value in values[:index]:
                yield (*at, name, index), f"repeats {str(value)!r}; leave it out"


def _wrong_types_and_stages(entry: PipelineEntry, at: Place) -> Iterator[Problem]:
    stages = [stage.name for stage in entry.stages]
    for index, request_type in enumerate(entry.types):
        needed = _NEEDED_STAGE.get(request_type)
        if needed is None:
            known = ", ".join(DATA_BY_TYPE)
            yield (*at, "types", index), f"no such type {request_type!r}; there are {known}"
        elif needed not in stages:
            yield (*at, "stages"), f"{request_type} needs stage {needed}; add it"
    if len(set(stages)) < len(stages):
        yield (*at, "stages"), "a stage stands twice; list each once"
    elif stages != (right := [stage for stage in StageName if stage in stages]):
        yield (*at, "stages"), f"wrong order; list them as {', '.join(right)}"
    used = set().union(*(_USED_STAGES.get(each, stages) for each in entry.types))
    for index, stage in enumerate(stages):
        if stage not in used:
            yield (*at, "stages", index), f"none of the types runs {stage}; leave it out"


def _repeated_keys(node: Any, place: Place, seen: set[int]) -> Iterator[Problem]:
    """Yield keys that stand twice in one mapping: YAML would take the last and say nothing."""
    if id(node) in seen:  # an alias of what was looked at
        return
    seen.add(id(node))
    if isinstance(node, yaml.MappingNode):
        keys = [key.value for key, _ in node.value]
        for index, (key, child) in enumerate(node.value):
            if key.value in keys[:index]:
                yield (*place, str(key.value)), "stands twice; keep one"
            yield from _repeated_keys(child, (*place, str(key.value)), seen)
    elif isinstance(node, yaml.SequenceNode):
        for index, child in enumerate(node.value):
            yield from _repeated_keys(child, (*place, index), seen)


def _line(tree: yaml.Node | None, place: Place) -> int:
    """Return the line, from 1, of the innermost part of `place` that is there."""
    if tree is None:  # an empty file
        return 1
    node = tree
    line = node.start_mark.line
    for part in place:
        if isinstance(node, yaml.MappingNode):
            found = [(key, child) for key, child in node.value if key.value == part]
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int):
            found = [(child, child) for child in node.value[part : part + 1]]
        else:
            found = []
        if not found:
            break
        key, node = found[-1]
        line = key.start_mark.line
    return int(line) + 1


def _field(place: Place) -> str:
    text = ""
    for part in place:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text or "the whole file"
