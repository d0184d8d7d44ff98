import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cortex_stream.cli.models import models_app
from cortex_stream.errors import UnknownModel
from tests.tiny_onnx import install_tiny


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CORTEX_MODELS__FOLDER", str(tmp_path / "models"))
    install_tiny(tmp_path / "models")
    return tmp_path / "models"


def damage(folder: Path) -> None:
    with (folder / "tiny" / "1" / "model.onnx").open("ab") as file:
        file.write(b"x")


def test_list_shows_installed_versions_and_known_models(folder: Path) -> None:
    result = CliRunner().invoke(models_app, ["list", "--json"])

    assert result.exit_code == 0
    rows = {row["name"]: row for row in json.loads(result.stdout)}
    assert rows["tiny"]["state"] == "sound"
    assert rows["tiny"]["folder"] == str(folder / "tiny" / "1")
    assert rows["minilm"]["state"] == "available"


def test_list_for_people_names_each_version(folder: Path) -> None:
    damage(folder)

    result = CliRunner().invoke(models_app, ["list"])

    assert result.exit_code == 0
    assert "tiny@1" in result.stdout
    assert "damaged" in result.stdout


def test_verify_succeeds_on_sound_versions(folder: Path) -> None:
    result = CliRunner().invoke(models_app, ["verify"])

    assert (result.exit_code, result.stdout) == (0, "sound tiny@1\n"), folder


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_verify_exits_1_and_says_what_is_damaged(folder: Path, options: list[str]) -> None:
    damage(folder)

    result = CliRunner().invoke(models_app, ["verify", "tiny", *options])

    assert result.exit_code == 1
    assert "damaged" in result.stdout
    assert "SHA-256" in result.stdout


def test_verifying_a_version_that_is_not_there_fails(folder: Path) -> None:
    result = CliRunner().invoke(models_app, ["verify", "tiny@9"])

    assert result.exit_code == 1, folder
    assert isinstance(result.exception, UnknownModel)


@pytest.mark.parametrize("arguments", [["pull"], ["export"], ["export", "/nowhere", "--name", "x"]])
def test_wrong_usage_exits_2(folder: Path, arguments: list[str]) -> None:
    assert CliRunner().invoke(models_app, arguments).exit_code == 2, folder
