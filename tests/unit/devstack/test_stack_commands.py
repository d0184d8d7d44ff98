from pathlib import Path

import pytest
from typer.testing import CliRunner

from cortex_stream.cli.stack import stack_app
from cortex_stream.devstack.stack import Stack
from cortex_stream.errors import StackFailed


def foreign_folder(parent: Path) -> Path:
    folder = parent / "default"
    folder.mkdir()
    (folder / "thesis.txt").write_text("three years of work", encoding="utf-8")
    return folder


@pytest.mark.parametrize("command", ["env", "status"])
def test_asking_a_stack_that_was_never_started_fails_and_says_what_to_do(
    command: str, tmp_path: Path
) -> None:
    result = CliRunner().invoke(stack_app, [command, "--data-dir", str(tmp_path)])

    assert result.exit_code == 1
    assert result.stdout == ""
    assert isinstance(result.exception, StackFailed)
    assert result.exception.repair == "cortex-stream stack up"


@pytest.mark.parametrize("command", ["down", "wipe"])
def test_ending_a_stack_that_was_never_started_succeeds_and_leaves_nothing(
    command: str, tmp_path: Path
) -> None:
    result = CliRunner().invoke(stack_app, [command, "--data-dir", str(tmp_path)])

    assert result.exit_code == 0
    assert list(tmp_path.iterdir()) == []


def test_wiping_a_folder_that_is_no_stack_touches_nothing(tmp_path: Path) -> None:
    folder = foreign_folder(tmp_path)

    with pytest.raises(StackFailed, match="no stack"):
        Stack(folder).wipe()

    assert (folder / "thesis.txt").read_text(encoding="utf-8") == "three years of work"


def test_starting_in_a_folder_that_holds_something_else_touches_nothing(tmp_path: Path) -> None:
    folder = foreign_folder(tmp_path)

    with pytest.raises(StackFailed, match="something else"):
        Stack(folder).up()

    assert [path.name for path in folder.iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize("name", ["../elsewhere", "a/b", "", "."])
def test_a_name_cannot_lead_out_of_the_data_folder(name: str, tmp_path: Path) -> None:
    result = CliRunner().invoke(stack_app, ["wipe", "--data-dir", str(tmp_path), "--name", name])

    assert result.exit_code == 2
