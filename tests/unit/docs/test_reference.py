import pytest
import typer
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from pydantic import BaseModel

from cortex_stream import errors
from cortex_stream.cli import reference
from cortex_stream.settings.section import Section
from cortex_stream.settings.tree import Settings
from topics.catalogue import CATALOGUE


def leaves(model: type[BaseModel], prefix: str = "CORTEX_") -> list[str]:
    """Return the variable of every setting, by the rule that the settings' docstring gives."""
    found = []
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, Section):
            found += leaves(field.annotation, f"{prefix}{name.upper()}__")
        else:
            found.append(str(field.validation_alias or f"{prefix}{name.upper()}"))
    return found


def rows(page: str) -> list[list[str]]:
    """Return the cells of every table row of a page."""
    return [
        [cell.strip() for cell in line.strip("|").split(" | ")]
        for line in page.splitlines()
        if line.startswith("| ")
    ]


def test_every_setting_has_a_row_with_text_default_and_example() -> None:
    by_variable = {row[0].strip("`"): row for row in rows(reference.settings_page())}

    for variable in leaves(Settings):
        _, meaning, _, default, example = by_variable[variable]
        assert meaning, variable
        assert default, variable
        assert example, variable


@pytest.mark.parametrize(
    ("variable", "unit", "default"),
    [
        ("CORTEX_KAFKA__SESSION_TIMEOUT_S", "seconds", "`10.0`"),
        ("CORTEX_LIMITS__TEXT_BYTES", "bytes", "`32768`"),
        ("CORTEX_LANES__LANE_BYTES", "bytes, or with a suffix such as MiB", "`256MiB`"),
        ("MODEL_CACHE_SIZE", "bytes, or with a suffix such as MiB", "`2GB`"),
        ("CORTEX_MODELS__SERVE", "", '`["minilm"]`'),
        ("CORTEX_KAFKA__INSTANCE_ID", "", "unset"),
        ("CORTEX_KAFKA__TOPIC_PREFIX", "", "empty"),
    ],
)
def test_units_and_defaults_are_written_as_one_would_set_them(
    variable: str, unit: str, default: str
) -> None:
    by_variable = {row[0].strip("`"): row for row in rows(reference.settings_page())}

    assert by_variable[variable][2:4] == [unit, default]


def test_every_error_code_is_listed_once_with_fate_and_meaning() -> None:
    classes = [
        value
        for value in vars(errors).values()
        if isinstance(value, type) and issubclass(value, errors.CortexError)
    ]

    listed = [row for row in rows(reference.errors_page()) if len(row) == 3][1:]

    codes = [row[0].strip("`") for row in listed if row[0].startswith("`")]
    assert sorted(codes) == sorted(error.code for error in classes)
    assert all(row[1] and row[2] for row in listed)


def test_errors_that_stop_a_process_stand_apart_from_those_on_the_wire() -> None:
    wire, _, ours = reference.errors_page().partition("Never on the wire")

    assert "`unknown_model`" in wire
    assert "`topics_mismatch`" in ours
    assert "`invariant`" in ours


def test_every_topic_is_listed() -> None:
    page = reference.topics_page()

    assert all(f"| `{spec.name}` |" in page for spec in CATALOGUE)


def test_a_metric_is_listed_under_the_name_that_is_served() -> None:
    registry = CollectorRegistry()
    metrics = [
        Counter("c_total", "Counts | things.", ["lane"], registry=registry),
        Gauge("g_bytes", "Weighs.", registry=registry),
        Histogram("h_seconds", "Takes.", ["stage", "model"], registry=registry),
    ]

    page = reference.metrics_page(metrics)

    assert "| `c_total` | counter | `lane` | Counts \\| things. |" in page
    assert "| `g_bytes` | gauge |  | Weighs. |" in page
    assert "| `h_seconds` | histogram | `stage`, `model` | Takes. |" in page


def example_commands() -> typer.Typer:
    app = typer.Typer()

    @app.callback()
    def _root() -> None:
        """Do things."""

    @app.command()
    def greet(
        name: str = typer.Argument(help="Whom."),
        *,
        loud: bool = typer.Option(default=False, help="Shout | it."),
        times: int = typer.Option(default=2, min=1, help="How often."),
    ) -> None:
        """Greet somebody.

        Twice if need be.
        """

    return app


def test_a_command_is_shown_with_usage_text_and_options() -> None:
    group = typer.main.get_group(example_commands())

    page = reference.cli_page("tool", group, group.commands)

    assert "## tool greet\n\n```\ntool greet [OPTIONS]" in page
    assert "Greet somebody.\n\nTwice if need be." in page
    assert "| `name <str>` | Whom. | `required` |" in page
    assert "| `--loud / --no-loud` | Shout \\| it. | `no-loud` |" in page
    assert "| `--times <int range>` | How often. | `2; x>=1` |" in page
    assert "| `greet` | Greet somebody. |" in page


def test_the_page_does_not_depend_on_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    group = typer.main.get_group(example_commands())
    pages = set()
    for columns in ("40", "200"):
        monkeypatch.setenv("COLUMNS", columns)
        monkeypatch.setenv("TERMINAL_WIDTH", columns)
        pages.add(reference.cli_page("tool", group, group.commands))

    assert len(pages) == 1
