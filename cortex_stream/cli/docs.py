"""`cortex-stream docs`: write what is generated from code, or say which of it is stale."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Final

import orjson
import typer
import yaml
from prometheus_client.metrics import MetricWrapperBase

from cortex_stream.cli import reference
from cortex_stream.cli.main import COMMANDS, app, load_command
from cortex_stream.errors import OperatorError
from cortex_stream.routing.pipeline_file import pipelines_schema
from cortex_stream.telemetry import metrics
from cortex_stream.version import VERSION
from schemas.export import json_schemas
from topics.asyncapi import asyncapi_document

docs_app = typer.Typer()

_PROGRAM: Final = "cortex-stream"
_STALE: Final = 1
_SCHEMAS: Final = Path("schemas", "json")


class _PlainDumper(yaml.SafeDumper):
    """Writes every value out, where PyYAML would refer back to an equal one."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002 (their signature)
        return True


def _literal(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    """Write text of several lines as one block."""
    return dumper.represent_scalar(
        "tag:yaml.org,2002:str", text, style="|" if "\n" in text else None
    )


_PlainDumper.add_representer(str, _literal)


@docs_app.callback(invoke_without_command=True)
def docs(
    *,
    check: Annotated[
        bool, typer.Option("--check", help="Write nothing; exit with 1 when a file is stale.")
    ] = False,
) -> None:
    """Write the reference pages, the JSON Schemas and the AsyncAPI document of this repository."""
    root = source_tree()
    stale = list(stale_files(root))
    for path, text in stale:
        if text is None:
            typer.echo(f"{'obsolete' if check else 'removed'}: {path}")
        else:
            typer.echo(f"{'stale' if check else 'written'}: {path}")
    if check and stale:
        typer.echo("repair: cortex-stream docs", err=True)
        raise typer.Exit(_STALE)
    for path, text in stale:
        if text is None:
            (root / path).unlink()
        else:
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_text(text, encoding="utf-8")
    if not stale:
        typer.echo("Every generated file is as its source says.")


def source_tree() -> Path:
    """Return the folder of the repository that this code runs from.

    Raises:
        OperatorError: it runs from an installed copy, which has no documents.
    """
    root = Path(__file__).resolve().parents[2]
    if not (root / "pyproject.toml").is_file():
        raise OperatorError(
            f"writing the documents: {root} is not the repository",
            repair="run it from a clone, after `pip install --editable .`",
        )
    return root


def stale_files(root: Path) -> Iterator[tuple[Path, str | None]]:
    """Yield (path below `root`, new text) of what differs; the text is None where none belongs."""
    generated = generate()
    for path, text in generated.items():
        present = root / path
        if not present.is_file() or present.read_text(encoding="utf-8") != text:
            yield path, text
    for present in sorted((root / _SCHEMAS).glob("*.json")):
        if present.relative_to(root) not in generated:
            yield present.relative_to(root), None


def generate() -> dict[Path, str]:
    """Return the text of every generated file, by its path below the repository."""
    pages = Path("docs", "reference")
    commands = {name: load_command(name) for name in COMMANDS}
    return {
        **{_SCHEMAS / f"{name}.json": _json(schema) for name, schema in json_schemas().items()},
        Path("docs", "asyncapi.yaml"): yaml.dump(
            asyncapi_document(version=VERSION),
            Dumper=_PlainDumper,
            sort_keys=False,
            allow_unicode=True,
            width=100,
        ),
        pages / "pipelines.schema.json": _json(pipelines_schema()),
        pages / "settings.md": reference.settings_page(),
        pages / "metrics.md": reference.metrics_page(
            value for value in vars(metrics).values() if isinstance(value, MetricWrapperBase)
        ),
        pages / "errors.md": reference.errors_page(),
        pages / "topics.md": reference.topics_page(),
        pages / "cli.md": reference.cli_page(_PROGRAM, typer.main.get_command(app), commands),
    }


def _json(value: object) -> str:
    return orjson.dumps(value, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE).decode()
