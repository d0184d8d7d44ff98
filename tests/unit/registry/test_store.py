import threading
from pathlib import Path

import pytest

from cortex_stream.errors import OperatorError, UnknownModel, UnsafeModel
from cortex_stream.registry.install import install
from cortex_stream.registry.store import ModelStore
from cortex_stream.settings.sections import ModelsSettings
from tests.tiny_onnx import external, install_tiny, tiny_facts, tiny_onnx


def store(folder: Path) -> ModelStore:
    return ModelStore(ModelsSettings(folder=folder))


def test_a_name_alone_means_the_latest_version_and_ten_is_later_than_nine(tmp_path: Path) -> None:
    for version in ("9", "10", "1.9", "1.10", "9-rc"):
        install_tiny(tmp_path, version=version)

    assert store(tmp_path).resolve("tiny").version == "10"
    assert store(tmp_path).resolve("tiny@9").version == "9"
    assert store(tmp_path).references() == [
        "tiny@1.9",
        "tiny@1.10",
        "tiny@9",
        "tiny@9-rc",
        "tiny@10",
    ]


@pytest.mark.parametrize("reference", ["minilm", "tiny@2", "Tiny", "../tiny", "", "tiny/1", "@1"])
def test_an_unknown_reference_names_the_command_that_gets_the_model(
    tmp_path: Path, reference: str
) -> None:
    install_tiny(tmp_path)

    with pytest.raises(UnknownModel, match="cortex-stream models pull"):
        store(tmp_path).resolve(reference)


def test_without_the_folder_of_models_nothing_is_known(tmp_path: Path) -> None:
    assert store(tmp_path / "missing").references() == []
    with pytest.raises(UnknownModel, match="no such model"):
        store(tmp_path / "missing").resolve("tiny")


def test_what_the_store_would_refuse_is_never_installed(tmp_path: Path) -> None:
    with pytest.raises(UnsafeModel):
        install_tiny(tmp_path, tiny_onnx(tensor=external("table", "/etc/passwd")))

    assert list(tmp_path.iterdir()) == []


def test_a_failed_install_leaves_the_installed_version_as_it_was(tmp_path: Path) -> None:
    before = install_tiny(tmp_path)

    def fail(_: Path) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(OperatorError, match="No space left"):
        install(ModelsSettings(folder=tmp_path), tiny_facts(), fail)
    assert store(tmp_path).resolve("tiny") == before
    assert [path.name for path in tmp_path.iterdir()] == ["tiny"]


def test_readers_see_the_old_version_or_the_new_one_and_never_a_mixture(tmp_path: Path) -> None:
    allowed = {install_tiny(tmp_path, pooling="cls").digest, install_tiny(tmp_path).digest}
    seen: set[str] = set()
    done = threading.Event()

    def read() -> None:
        while not done.is_set():
            try:
                seen.add(store(tmp_path).resolve("tiny@1").digest)
            except (UnknownModel, UnsafeModel):  # between the renames, or gone while it was read
                continue

    reader = threading.Thread(target=read)
    reader.start()
    for index in range(30):
        install_tiny(tmp_path, pooling="cls" if index % 2 else "mean")
    done.set()
    reader.join()

    assert seen
    assert seen <= allowed
