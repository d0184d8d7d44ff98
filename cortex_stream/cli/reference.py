"""The reference pages, written from the code that they describe. Pure: values in, Markdown out."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from inspect import cleandoc
from typing import Any, Final

import orjson
from prometheus_client.metrics import MetricWrapperBase
from pydantic import BaseModel, ByteSize, SecretStr
from pydantic.fields import FieldInfo

from cortex_stream import errors
from cortex_stream.cli.topics import kept
from cortex_stream.settings.section import Section
from cortex_stream.settings.tree import Settings
from topics.catalogue import CATALOGUE, CURRENT, NEW_CONFIGS, TopicSpec

_GENERATED: Final = "<!-- Written by `cortex-stream docs`; do not edit. -->"
_UNITS: Final = {
    "s": "seconds",
    "ms": "milliseconds",
    "bytes": "bytes",
    "tokens": "tokens",
    "rows": "rows",
}


def settings_page() -> str:
    """Return the page of every setting: variable, meaning, unit, default, example."""
    sections: dict[str, list[list[str]]] = {}
    for title, variable, name, field in _settings(Settings, "CORTEX_", ""):
        sections.setdefault(title, []).append(
            [
                f"`{variable}`",
                field.description or "",
                _unit(name, field),
                _value(field.get_default(call_default_factory=True)),
                _value(field.examples[0]) if field.examples else "",
            ]
        )
    header = ["variable", "meaning", "unit", "default", "example"]
    return _page(
        "Settings",
        "Every setting is read once from the environment when a process starts. A value that does"
        " not fit is named with its variable, and the process does not start.",
        *(f"## {title}\n\n{_table(header, rows)}" for title, rows in sections.items()),
    )


def metrics_page(metrics: Iterable[MetricWrapperBase]) -> str:
    """Return the page of `metrics`, in their order: name, type, labels, meaning."""
    rows = [
        [
            f"`{sample}`",
            family.type,
            ", ".join(f"`{label}`" for label in metric._labelnames),  # noqa: SLF001 (no public one)
            family.documentation,
        ]
        for metric in metrics
        for family in metric.collect()
        for sample in [family.name + ("_total" if family.type == "counter" else "")]
    ]
    return _page(
        "Metrics",
        "Served in Prometheus' text format on `/metrics`, beside what its client library knows of"
        " the process (`process_…`). Labels have few values by construction.",
        _table(["metric", "type", "labels", "meaning"], rows),
    )


def errors_page() -> str:
    """Return the page of every error class: code, fate, meaning; those on the wire first."""
    wire: list[list[str]] = []
    ours: list[list[str]] = []
    for error in _error_classes():
        row = [f"`{error.code}`", error.disposition.value, _first_paragraph(error)]
        (ours if error.disposition is errors.Disposition.FATAL else wire).append(row)
    fates = [
        [f"`{member.value}`", meaning]
        for member, meaning in {
            errors.Disposition.REJECT: "the request is at fault: outcome `rejected`",
            errors.Disposition.RETRY: "the world is at fault and may heal: tried again first",
            errors.Disposition.DEAD_LETTER: "retrying cannot help: outcome `dead_letter`",
            errors.Disposition.EXPIRE: "nobody waits any more: outcome `expired`",
            errors.Disposition.FATAL: "the process cannot go on; nothing is acknowledged",
        }.items()
    ]
    header = ["code", "fate", "meaning"]
    return _page(
        "Errors",
        "Codes are part of the wire contract: never renamed, never reused.",
        f"## Fates\n\n{_table(['fate', 'what becomes of the request'], fates)}",
        f"## In outcomes and dead letters\n\n{_table(header, wire)}",
        f"## Of processes and commands\n\nNever on the wire.\n\n{_table(header, ours)}",
    )


def topics_page() -> str:
    """Return the page of every topic: the ones in use, the planned ones, and why they are so."""
    planned = [spec for spec in CATALOGUE if spec.planned]
    header = ["topic", "direction", "key", "partitions dev / prod", "kept", "holds"]
    return _page(
        "Topics",
        "`cortex-stream topics plan` compares a cluster with this list, `topics apply` creates what"
        " is missing and mends settings; nothing is ever deleted, and how long a topic keeps its"
        " records stays as it was chosen there ([how](../operations/topics.md)). Every name stands under"
        " `CORTEX_KAFKA__TOPIC_PREFIX`. `CORTEX_KAFKA__PROFILE` chooses the partitions, and"
        " replication 1 with min.insync 1 (dev) or 3 with 2 (prod).",
        f"## In use\n\n{_table(header, [_topic_row(spec) for spec in CURRENT])}",
        f"## Kept and sized, and why\n\n{_table(_DECISIONS, [_decision(spec) for spec in CURRENT])}",
        "## Planned\n\nFor later releases; `topics apply` does not create them yet.\n\n"
        + _table(header, [_topic_row(spec) for spec in planned]),
    )


def cli_page(program: str, root: Any, commands: Mapping[str, Any]) -> str:
    """Return the page of every command: `root` itself, then each of `commands` with its own."""
    sections = [_command_section(program, root)]
    for name, command in commands.items():
        sections += _command_tree(f"{program} {name}", command)
    return _page(
        "Command line",
        "What `--help` says, for reading in one piece. `<str>` and the like say what follows an"
        " option. No option has an environment variable of its own: which system a command works on"
        " (brokers, security, prefix, models) is said by the [settings](settings.md), as for a"
        " worker.",
        *sections,
    )


def _settings(
    model: type[BaseModel], prefix: str, title: str
) -> Iterator[tuple[str, str, str, FieldInfo]]:
    """Yield (heading, variable, field name, field) of every leaf of the tree."""
    for name, field in model.model_fields.items():
        annotation = field.annotation
        if isinstance(annotation, type) and issubclass(annotation, Section):
            heading = f"{title} {name}".strip()
            yield from _settings(annotation, f"{prefix}{name.upper()}__", heading)
        else:
            alias = field.validation_alias
            variable = alias if isinstance(alias, str) else f"{prefix}{name.upper()}"
            yield (title or "platform").capitalize(), variable, name, field


def _unit(name: str, field: FieldInfo) -> str:
    if field.annotation is ByteSize:
        return "bytes, or with a suffix such as MiB"
    return _UNITS.get(name.rpartition("_")[2], "")


def _value(value: object) -> str:
    if value is None:
        return "unset"
    if value == "":
        return "empty"
    if isinstance(value, SecretStr):
        value = value.get_secret_value()
    elif isinstance(value, ByteSize):
        binary = value % (1 << 20) == 0
        value = value.human_readable(decimal=not binary).replace(".0", "")
    elif isinstance(value, tuple):
        value = orjson.dumps(value).decode()
    return f"`{value}`"


def _error_classes() -> Iterator[type[errors.CortexError]]:
    for member in vars(errors).values():
        if isinstance(member, type) and issubclass(member, errors.CortexError):
            yield member


_DECISIONS: Final = [
    "topic",
    "cleanup",
    "largest record",
    "timestamp",
    "refuses older than",
    "kept because",
]


def _topic_row(spec: TopicSpec) -> list[str]:
    partitions = f"{spec.partitions('dev')} / {spec.partitions('prod')}"
    return [f"`{spec.name}`", spec.direction.value, spec.key, partitions, kept(spec), spec.holds]


def _decision(spec: TopicSpec) -> list[str]:
    timestamp = spec.config("prod")["message.timestamp.type"]
    size = f"{spec.max_message_bytes >> 20} MiB"
    oldest = kept(spec) if spec.config("prod").keys() >= NEW_CONFIGS else ""
    return [f"`{spec.name}`", spec.cleanup_policy, size, timestamp, oldest, spec.kept_because]


def _command_tree(path: str, command: Any) -> Iterator[str]:
    yield _command_section(path, command)
    for name, child in getattr(command, "commands", {}).items():
        yield from _command_tree(f"{path} {name}", child)


def _command_section(path: str, command: Any) -> str:
    context = command.make_context(path, [], resilient_parsing=True)
    children = getattr(command, "commands", {})
    pieces = command.collect_usage_pieces(context)
    usage = " ".join([path, *(pieces if children else _without_command(pieces))])
    parts = [f"## {path}", f"```\n{usage}\n```", cleandoc(_plain(command.help or ""))]
    for kind in ("argument", "option"):
        rows = [
            _parameter_row(*parameter.get_help_record(context))
            for parameter in command.params
            if parameter.param_type_name == kind
            and not parameter.hidden
            and parameter.name != "help"
        ]
        if rows:
            parts.append(_table([kind, "meaning", "default and bounds"], rows))
    if children:
        does = [[f"`{name}`", _plain(child.help or "")] for name, child in children.items()]
        parts.append(
            _table(["command", "does"], [[name, text.partition("\n")[0]] for name, text in does])
        )
    return "\n\n".join(part for part in parts if part)


def _parameter_row(spelling: str, text: str) -> list[str]:
    """Return the row of what help says of a parameter, `meaning  [default: 1; x>=0]`."""
    meaning, _, found = text.rpartition("[") if text.endswith("]") else (text, "", "")
    bounds = found.removesuffix("]").removeprefix("default: ")
    return [f"`{spelling}`", _plain(meaning), f"`{bounds}`" if bounds else ""]


def _without_command(pieces: Sequence[str]) -> list[str]:
    """Drop what a group without commands of its own says of them."""
    return [piece for piece in pieces if not piece.startswith("COMMAND")]


def _plain(text: str) -> str:
    """Return `text` without the marks of rich, and of click (a form feed ends what help shows)."""
    return (
        text.partition("\f")[0].replace("[bold]", "**").replace("[/bold]", "**").replace("\b", "")
    )


def _first_paragraph(documented: type) -> str:
    return " ".join(cleandoc(documented.__doc__ or "").partition("\n\n")[0].split())


def _page(title: str, introduction: str, *sections: str) -> str:
    return "\n\n".join([f"# {title}", _GENERATED, introduction, *sections]) + "\n"


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(_cell(cell) for cell in line) + " |" for line in lines)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
