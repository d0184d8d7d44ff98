import sys
from pathlib import Path

import pytest

from cortex_stream.errors import OperatorError
from cortex_stream.registry.export import export
from cortex_stream.settings.sections import ModelsSettings
from tests.tiny_onnx import install_tiny


def export_here(tmp_path: Path, *, name: str) -> None:
    export(
        tmp_path,
        ModelsSettings(folder=tmp_path / "models"),
        name=name,
        version="1",
        precision="int8",
        licence="MIT",
    )


def test_without_torch_the_error_names_the_extra_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)  # as if it were not installed

    with pytest.raises(OperatorError, match="torch is not installed") as caught:
        export_here(tmp_path, name="mine")

    assert "cortex-stream[export]" in str(caught.value.repair)


def test_an_installed_version_is_never_replaced(tmp_path: Path) -> None:
    before = install_tiny(tmp_path / "models")

    with pytest.raises(OperatorError, match="versions never change"):
        export_here(tmp_path, name="tiny")

    assert before.onnx_path.is_file()
