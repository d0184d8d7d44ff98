"""What a later release of a JSON Schema must not do to those who rely on an earlier one.

Fields may be added if they can be left out; nothing may be removed or narrowed. Covers the part of
JSON Schema that pydantic writes for our messages; unknown keywords must stay as they are.
"""

from collections.abc import Iterator
from typing import Any, Final

_FLOORS: Final = ("minimum", "exclusiveMinimum", "minLength", "minItems")
_CEILINGS: Final = ("maximum", "exclusiveMaximum", "maxLength", "maxItems")
_EXACT: Final = ("pattern", "format")
_FREE_TO_CHANGE: Final = ("$schema", "$id", "$defs", "title", "description", "examples")
_HANDLED: Final = frozenset(
    (
        *(*_FLOORS, *_CEILINGS, *_EXACT, *_FREE_TO_CHANGE),
        *("type", "enum", "const", "anyOf", "$ref", "items"),
        *("properties", "required", "additionalProperties", "default"),
    )
)

Schema = dict[str, Any]


def breaking_changes(old: Schema, new: Schema, *, promised: bool) -> list[str]:
    """Return what in `new` breaks those who rely on `old`, by the path of the field.

    Args:
        old: the document of the earlier release.
        new: the document of the later one.
        promised: the messages are written by us: readers rely on demanded fields being there.
    """
    return list(_compare(old, new, path="", documents=(old, new), promised=promised))


def _compare(
    old: Schema, new: Schema, *, path: str, documents: tuple[Schema, Schema], promised: bool
) -> Iterator[str]:
    old_options, new_options = _options(old, documents[0]), _options(new, documents[1])
    if len(old_options) == len(new_options) == 1:
        yield from _compare_one(
            old_options[0], new_options[0], path=path, documents=documents, promised=promised
        )
        return
    for option in old_options:
        attempts = [
            list(_compare_one(option, other, path=path, documents=documents, promised=promised))
            for other in new_options
        ]
        if all(attempts):  # none of them without a break
            yield f"{path or '/'}: no longer takes {option.get('type', option)}"


def _compare_one(
    old: Schema, new: Schema, *, path: str, documents: tuple[Schema, Schema], promised: bool
) -> Iterator[str]:
    where = path or "/"
    types = (old.get("type"), new.get("type"))
    if types[1] is not None and types[0] != types[1] and types != ("integer", "number"):
        yield f"{where}: type {types[0] or 'any'} became {types[1]}"
        return
    yield from _compare_values(old, new, where=where)
    if "items" in new:
        yield from _compare(
            old.get("items", {}),
            new["items"],
            path=f"{path}/*",
            documents=documents,
            promised=promised,
        )
    yield from _compare_fields(old, new, path=path, documents=documents, promised=promised)


def _compare_values(old: Schema, new: Schema, *, where: str) -> Iterator[str]:
    if "const" in new or "enum" in new:
        gone = sorted(_values(old) - _values(new)) if _values(old) else ["any other value"]
        if gone:
            yield f"{where}: no longer takes {', '.join(gone)}"
    yield from _compare_bounds(old, new, where=where)
    for keyword in _EXACT:
        if keyword in new and new[keyword] != old.get(keyword):
            yield f"{where}: {keyword} changed"
    for keyword in sorted((old.keys() | new.keys()) - _HANDLED):
        if old.get(keyword) != new.get(keyword):
            yield f"{where}: {keyword} changed, which this comparison does not understand"
    if "default" in old and old["default"] != new.get("default"):
        yield f"{where}: default changed from {old['default']!r}"


def _compare_bounds(old: Schema, new: Schema, *, where: str) -> Iterator[str]:
    for keyword in _FLOORS:
        if keyword in new and new[keyword] > old.get(keyword, float("-inf")):
            yield f"{where}: {keyword} rose to {new[keyword]}"
    for keyword in _CEILINGS:
        if keyword in new and new[keyword] < old.get(keyword, float("inf")):
            yield f"{where}: {keyword} fell to {new[keyword]}"


def _compare_fields(
    old: Schema, new: Schema, *, path: str, documents: tuple[Schema, Schema], promised: bool
) -> Iterator[str]:
    old_fields, new_fields = old.get("properties", {}), new.get("properties", {})
    old_demanded, new_demanded = set(old.get("required", ())), set(new.get("required", ()))
    for name in sorted(old_fields.keys() - new_fields.keys()):
        yield f"{path}/{name}: removed"
    for name in sorted(new_demanded - old_demanded):
        if name in old_fields or not promised:
            yield f"{path}/{name}: is demanded now"
    if promised:
        for name in sorted((old_demanded - new_demanded) & new_fields.keys()):
            yield f"{path}/{name}: is no longer promised"
    was, now = (side.get("additionalProperties", True) for side in (old, new))
    if now is False and was is not False:
        yield f"{path or '/'}: no longer takes unknown fields"
    elif isinstance(was, dict) and isinstance(now, dict):
        yield from _compare(was, now, path=f"{path}/*", documents=documents, promised=promised)
    for name in sorted(old_fields.keys() & new_fields.keys()):
        yield from _compare(
            old_fields[name],
            new_fields[name],
            path=f"{path}/{name}",
            documents=documents,
            promised=promised,
        )


def _options(schema: Schema, document: Schema) -> list[Schema]:
    """Return the alternatives of a schema, references followed; a default counts for each."""
    if "$ref" in schema:
        rest = {key: value for key, value in schema.items() if key != "$ref"}
        target = document["$defs"][schema["$ref"].removeprefix("#/$defs/")]
        return [{**option, **rest} for option in _options(target, document)]
    if "anyOf" in schema:
        rest = {key: value for key, value in schema.items() if key != "anyOf"}
        return [
            {**option, **rest} for part in schema["anyOf"] for option in _options(part, document)
        ]
    return [schema]


def _values(schema: Schema) -> set[str]:
    values = [schema["const"]] if "const" in schema else schema.get("enum", [])
    return {repr(value) for value in values}
