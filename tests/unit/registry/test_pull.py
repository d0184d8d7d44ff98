import zipfile
from pathlib import Path

import pytest

from cortex_stream.errors import OperatorError, UnsafeModel
from cortex_stream.registry.known import KNOWN
from cortex_stream.registry.manifest import Manifest
from cortex_stream.registry.pull import pull, take_out
from cortex_stream.settings.sections import ModelsSettings


def manifest_of(facts: dict[str, object]) -> Manifest:
    files = {"model.onnx": "0" * 64, "tokenizer.json": "1" * 64}
    stated = {"format": 1, **facts, "files": files, "digest": "sha256:" + "0" * 64}
    return Manifest.model_validate(stated).sealed()


@pytest.fixture
def jar(tmp_path: Path) -> Path:
    path = tmp_path / "some.jar"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("model.onnx", b"weights")
        archive.writestr("bomb.onnx", bytes(50_000_000))
        archive.writestr("../escaped.onnx", b"weights")
    return path


def test_an_entry_is_written_where_we_say_whatever_its_name(jar: Path, tmp_path: Path) -> None:
    target = tmp_path / "folder" / "model.onnx"
    target.parent.mkdir()

    take_out(jar, "../escaped.onnx", target, max_bytes=100)

    assert target.read_bytes() == b"weights"
    assert not (tmp_path / "escaped.onnx").exists()


def test_a_bomb_stops_at_the_cap(jar: Path, tmp_path: Path) -> None:
    assert jar.stat().st_size < 100_000

    with pytest.raises(UnsafeModel, match="more than 2000000 bytes"):
        take_out(jar, "bomb.onnx", tmp_path / "out", max_bytes=2_000_000)
    assert (tmp_path / "out").stat().st_size <= 2_000_000


def test_a_missing_entry_is_named(jar: Path, tmp_path: Path) -> None:
    with pytest.raises(UnsafeModel, match=r"other\.onnx"):
        take_out(jar, "other.onnx", tmp_path / "out", max_bytes=100)


def test_a_damaged_archive_is_refused(jar: Path, tmp_path: Path) -> None:
    jar.write_bytes(jar.read_bytes()[:-100])

    with pytest.raises(UnsafeModel, match=r"some\.jar"):
        take_out(jar, "model.onnx", tmp_path / "out", max_bytes=100)


def test_a_name_that_is_not_known_lists_those_that_are(tmp_path: Path) -> None:
    with pytest.raises(
        OperatorError, match="minilm, minilm-exact, minilm-q, minilm-fp32, bge-small, e5-small"
    ):
        pull("gpt", ModelsSettings(folder=tmp_path))


def test_a_folder_that_cannot_be_made_is_an_error_with_a_repair(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")

    with pytest.raises(OperatorError) as caught:
        pull("minilm", ModelsSettings(folder=tmp_path / "file" / "models"))

    assert caught.value.repair is not None
    assert "CORTEX_MODELS__FOLDER" in caught.value.repair


def test_minilm_is_int8_and_the_default_and_minilm_fp32_is_float() -> None:
    assert KNOWN["minilm"].manifest()["precision"] == "int8"
    assert KNOWN["minilm-fp32"].manifest()["precision"] == "fp32"
    assert ModelsSettings().serve == ("minilm",)
    assert ModelsSettings().embed_default == "minilm"


def test_minilm_reads_256_tokens_and_the_others_512_and_e5_is_told_the_role_of_a_text() -> None:
    assert {name: known.facts["max_tokens"] for name, known in KNOWN.items()} == {
        "minilm": 256,
        "minilm-exact": 256,
        "minilm-q": 256,
        "minilm-fp32": 256,
        "bge-small": 512,
        "e5-small": 512,
        "e5-small-exact": 512,
    }
    assert KNOWN["e5-small"].facts["prefixes"] == {"query": "query: ", "passage": "passage: "}


def test_the_default_and_every_float_model_do_not_depend_on_company_and_the_usual_int8_does() -> (
    None
):
    manifests = {name: manifest_of(known.manifest()) for name, known in KNOWN.items()}

    assert {name: made.is_batch_invariant for name, made in manifests.items()} == {
        "minilm": True,
        "minilm-exact": True,
        "minilm-q": False,
        "minilm-fp32": True,
        "bge-small": False,
        "e5-small": True,
        "e5-small-exact": True,
    }


@pytest.mark.parametrize(("precision", "invariant"), [("int8", False), ("fp32", True)])
def test_a_version_that_does_not_say_is_taken_to_depend_on_company_if_it_is_int8(
    precision: str, *, invariant: bool
) -> None:
    facts = {**KNOWN["minilm-fp32"].manifest(), "precision": precision}

    manifest = manifest_of(facts)

    assert manifest.batch_invariant is None
    assert manifest.is_batch_invariant is invariant


@pytest.mark.parametrize("name", KNOWN)
def test_what_is_known_of_a_model_makes_a_manifest(name: str) -> None:
    known = KNOWN[name]

    manifest = manifest_of(known.manifest())

    assert manifest.name == name
    assert manifest.digest == manifest.true_digest()
    assert len(known.artifact.sha256) == 64
