import hashlib
import os
from pathlib import Path

import pytest

from cortex_stream.errors import ModelLoadFailed, UnsafeModel
from cortex_stream.registry.manifest import MANIFEST_FILE, read_manifest
from cortex_stream.registry.store import ModelStore, ModelVersion
from cortex_stream.settings.sections import ModelsSettings
from tests.tiny_onnx import external, install_tiny, message, node, reseal, tiny_onnx

CANARY = b"canary " * 100


@pytest.fixture
def version(tmp_path: Path) -> ModelVersion:
    return install_tiny(tmp_path / "models")


def resolve(version: ModelVersion, **changed: object) -> ModelVersion:
    settings = ModelsSettings(folder=version.folder.parents[1]).model_copy(update=changed)
    return ModelStore(settings).resolve("tiny@1")


def test_an_untouched_version_is_handed_out(version: ModelVersion) -> None:
    found = resolve(version)

    assert found == version
    assert found.digest == found.manifest.true_digest()
    assert found.onnx_path.is_file()
    assert found.tokenizer_path.is_file()


@pytest.mark.parametrize("name", ["model.onnx", "tokenizer.json"])
def test_one_changed_byte_in_any_file_is_found(version: ModelVersion, name: str) -> None:
    content = bytearray((version.folder / name).read_bytes())
    content[len(content) // 2] ^= 1
    (version.folder / name).write_bytes(content)

    with pytest.raises(UnsafeModel, match="SHA-256"):
        resolve(version)


def test_a_changed_manifest_is_found(version: ModelVersion) -> None:
    manifest = version.folder / MANIFEST_FILE
    manifest.write_text(manifest.read_text().replace("pooling: mean", "pooling: cls"))

    with pytest.raises(UnsafeModel, match="digest"):
        resolve(version)


def test_a_digest_depends_on_every_file_and_on_how_the_model_is_run(tmp_path: Path) -> None:
    plain = install_tiny(tmp_path / "a").digest

    assert install_tiny(tmp_path / "b").digest == plain
    assert install_tiny(tmp_path / "c", pooling="cls").digest != plain
    assert install_tiny(tmp_path / "d", tiny_onnx(opset=16)).digest != plain


@pytest.mark.parametrize("name", ["model.onnx", "tokenizer.json", MANIFEST_FILE])
def test_a_missing_file_is_found(version: ModelVersion, name: str) -> None:
    (version.folder / name).unlink()

    with pytest.raises(UnsafeModel):
        resolve(version)


def test_a_file_that_the_manifest_does_not_list_is_refused(version: ModelVersion) -> None:
    (version.folder / "extra.bin").write_bytes(b"x")

    with pytest.raises(UnsafeModel, match=r"does not list \['extra.bin'\]"):
        resolve(version)


def test_a_file_above_the_cap_is_not_opened(version: ModelVersion) -> None:
    with pytest.raises(UnsafeModel, match="allowed are 100"):
        resolve(version, file_bytes=100)


@pytest.mark.parametrize("name", ["model.onnx", "tokenizer.json", MANIFEST_FILE])
def test_a_hard_link_is_refused_although_its_bytes_are_right(
    version: ModelVersion, tmp_path: Path, name: str
) -> None:
    os.link(version.folder / name, tmp_path / "second-name")

    with pytest.raises(UnsafeModel, match="hard links"):
        resolve(version)


def test_a_symbolic_link_is_refused_although_its_bytes_are_right(
    version: ModelVersion, tmp_path: Path
) -> None:
    moved = version.onnx_path.rename(tmp_path / "elsewhere.onnx")
    version.onnx_path.symlink_to(moved)

    with pytest.raises(UnsafeModel, match="not a plain file"):
        resolve(version)


@pytest.mark.parametrize("level", [0, 1])
def test_a_linked_folder_is_refused(version: ModelVersion, tmp_path: Path, level: int) -> None:
    folder = [version.folder, version.folder.parent][level]
    moved = folder.rename(tmp_path / "elsewhere")
    folder.symlink_to(moved)

    with pytest.raises(UnsafeModel, match="not a plain folder"):
        resolve(version)


@pytest.mark.parametrize("name", ["tokenizer.json", MANIFEST_FILE])
def test_a_named_pipe_is_refused_without_waiting_for_a_writer(
    version: ModelVersion, name: str
) -> None:
    (version.folder / name).unlink()
    os.mkfifo(version.folder / name)

    with pytest.raises(UnsafeModel, match="not a plain file"):
        resolve(version)


def test_a_sub_folder_is_refused(version: ModelVersion) -> None:
    (version.folder / "data").mkdir()

    with pytest.raises(UnsafeModel, match="data"):
        resolve(version)


@pytest.mark.parametrize(
    "name", ["../tiny.onnx", "/etc/passwd", "a/b.onnx", "..", ".hidden.onnx", "a\\b.onnx", ""]
)
def test_a_manifest_cannot_name_a_file_elsewhere(version: ModelVersion, name: str) -> None:
    manifest = version.folder / MANIFEST_FILE
    manifest.write_text(manifest.read_text().replace("model.onnx", repr(name)))

    with pytest.raises(UnsafeModel, match=r"model\.yaml"):
        resolve(version)


@pytest.mark.parametrize(
    "content",
    [b"", b"- 1", b"{", b"a: \xff", b"x" * 2_000_000, b"[" * 9000, b"9" * 9000, b"2024-99-99"],
)
def test_a_manifest_that_is_none_is_refused(version: ModelVersion, content: bytes) -> None:
    (version.folder / MANIFEST_FILE).write_bytes(content)

    with pytest.raises(UnsafeModel, match=r"model\.yaml"):
        resolve(version)


def test_a_manifest_cannot_build_python_objects(version: ModelVersion, tmp_path: Path) -> None:
    canary = tmp_path / "ran"
    (version.folder / MANIFEST_FILE).write_text(f"!!python/object/apply:os.mkdir ['{canary}']")

    with pytest.raises(UnsafeModel, match="not YAML"):
        resolve(version)
    assert not canary.exists()


def test_a_version_in_the_folder_of_another_is_refused(version: ModelVersion) -> None:
    version.folder.rename(version.folder.with_name("2"))
    settings = ModelsSettings(folder=version.folder.parents[1])

    with pytest.raises(UnsafeModel, match="tiny@1"):
        ModelStore(settings).resolve("tiny@2")


class TestExternalData:
    """A graph may name files for its numbers; ONNX Runtime would read whatever is named."""

    @pytest.mark.parametrize(
        "location",
        [
            "../canary",
            "a/../../canary",
            "./weights.bin",
            "sub/weights.bin",
            "{outside}/canary",
            "*/_ORT_MEM_ADDR_/*",
            "",
        ],
    )
    def test_a_location_that_is_no_file_of_the_folder_is_refused(
        self, version: ModelVersion, tmp_path: Path, location: str
    ) -> None:
        (tmp_path / "canary").write_bytes(CANARY)
        (version.folder / "weights.bin").write_bytes(CANARY)
        tensor = external("table", location.format(outside=tmp_path))
        version.onnx_path.write_bytes(tiny_onnx(tensor=tensor))
        reseal(version.folder)

        with pytest.raises(UnsafeModel, match="reads data from"):
            resolve(version)

    @pytest.mark.parametrize("link", ["symbolic", "hard", "folder"])
    def test_a_link_to_a_file_outside_is_refused(
        self, version: ModelVersion, tmp_path: Path, link: str
    ) -> None:
        secret = tmp_path / "secrets" / "canary"
        secret.parent.mkdir()
        secret.write_bytes(CANARY)
        version.onnx_path.write_bytes(tiny_onnx(tensor=external("table", "weights.bin")))
        weights = version.folder / "weights.bin"
        match link:
            case "symbolic":
                weights.symlink_to(secret)
            case "hard":
                os.link(secret, weights)
            case _:
                weights.symlink_to(secret.parent)
        manifest = read_manifest(version.folder)
        onnx = hashlib.sha256(version.onnx_path.read_bytes()).hexdigest()
        files = {
            **manifest.files,
            "model.onnx": onnx,
            "weights.bin": hashlib.sha256(CANARY).hexdigest(),
        }
        manifest.model_copy(update={"files": files}).sealed().write(version.folder)

        with pytest.raises(UnsafeModel, match=r"weights\.bin"):
            resolve(version)

    def test_a_listed_file_of_the_folder_is_allowed(self, version: ModelVersion) -> None:
        (version.folder / "weights.bin").write_bytes(bytes(4800))
        version.onnx_path.write_bytes(tiny_onnx(tensor=external("table", "weights.bin")))
        reseal(version.folder)

        assert set(resolve(version).manifest.files) >= {"weights.bin"}

    def test_a_location_hidden_in_the_graph_of_a_node_is_found(self, version: ModelVersion) -> None:
        inner = message(6, external("hidden", "../canary"))  # AttributeProto.g, GraphProto
        branching = message(1, message(4, "If"), message(5, message(1, "then_branch"), inner))
        version.onnx_path.write_bytes(tiny_onnx(more_nodes=branching))
        reseal(version.folder)

        with pytest.raises(UnsafeModel, match=r"\.\./canary"):
            resolve(version)

    def test_a_second_graph_that_readers_merge_is_read_too(self, version: ModelVersion) -> None:
        second = message(7, external("hidden", "../canary"))
        version.onnx_path.write_bytes(tiny_onnx() + second)
        reseal(version.folder)

        with pytest.raises(UnsafeModel, match=r"\.\./canary"):
            resolve(version)


@pytest.mark.parametrize("operator", ["Loop", "Scan", "EPContext"])
def test_an_operator_that_may_never_end_or_opens_files_is_refused(
    version: ModelVersion, operator: str
) -> None:
    version.onnx_path.write_bytes(tiny_onnx(more_nodes=node(operator, [], ["out"])))
    reseal(version.folder)

    with pytest.raises(UnsafeModel, match=operator):
        resolve(version)


def test_graphs_nested_without_end_are_refused(version: ModelVersion) -> None:
    nodes = node("Relu", ["table"], ["out"])
    for _ in range(40):
        nodes = message(1, message(4, "If"), message(5, message(6, nodes)))
    version.onnx_path.write_bytes(tiny_onnx(more_nodes=nodes))
    reseal(version.folder)

    with pytest.raises(UnsafeModel, match="nesting"):
        resolve(version)


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"", id="empty"),
        pytest.param(tiny_onnx()[:-200], id="truncated"),
        pytest.param(bytes(range(1, 256)) * 20, id="random bytes"),
        pytest.param(b"\x00" * 5000, id="zeros"),
        pytest.param(b"\x3b" + b"\xff" * 30, id="a group without end"),
        pytest.param(b"\xff" * 30, id="a number without end"),
        pytest.param(b"\x3a\x05abc", id="longer than the file"),
    ],
)
def test_a_graph_that_is_no_onnx_is_refused_before_it_is_opened(
    version: ModelVersion, content: bytes
) -> None:
    version.onnx_path.write_bytes(content)
    reseal(version.folder)

    with pytest.raises(ModelLoadFailed, match=r"model\.onnx"):
        resolve(version)
