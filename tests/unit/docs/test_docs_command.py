from pathlib import Path

import pytest
from typer.testing import CliRunner

from cortex_stream.cli import docs
from cortex_stream.cli.docs import docs_app, generate, source_tree
from cortex_stream.errors import OperatorError

EMBED_SCHEMA = Path("schemas/json/embed-request.v1.json")


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder in place of the repository."""
    monkeypatch.setattr(docs, "source_tree", lambda: tmp_path)
    return tmp_path


def test_docs_writes_every_file_and_then_check_is_content(tree: Path) -> None:
    runner = CliRunner()

    written = runner.invoke(docs_app, [])

    assert written.exit_code == 0
    assert f"written: {EMBED_SCHEMA}" in written.stdout
    assert {path for path in generate() if not (tree / path).is_file()} == set()
    assert runner.invoke(docs_app, ["--check"]).exit_code == 0


def test_check_names_each_stale_file_and_the_command_that_repairs_it(tree: Path) -> None:
    runner = CliRunner()
    runner.invoke(docs_app, [])
    (tree / EMBED_SCHEMA).write_text("{}", encoding="utf-8")
    (tree / "docs/asyncapi.yaml").unlink()
    (tree / "schemas/json/gone.v1.json").write_text("{}", encoding="utf-8")

    checked = runner.invoke(docs_app, ["--check"])

    assert checked.exit_code == 1
    assert checked.stdout.splitlines() == [
        f"stale: {EMBED_SCHEMA}",
        "stale: docs/asyncapi.yaml",
        "obsolete: schemas/json/gone.v1.json",
    ]
    assert "repair: cortex-stream docs" in checked.stderr
    assert (tree / EMBED_SCHEMA).read_text(encoding="utf-8") == "{}"


def test_docs_removes_the_schema_of_a_message_that_is_no_more(tree: Path) -> None:
    obsolete = tree / "schemas/json/gone.v1.json"
    obsolete.parent.mkdir(parents=True)
    obsolete.write_text("{}", encoding="utf-8")

    CliRunner().invoke(docs_app, [])

    assert not obsolete.exists()


def test_generating_twice_gives_the_same_text() -> None:
    assert generate() == generate()


def test_an_installed_copy_says_that_it_has_no_documents(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(docs, "__file__", str(tmp_path / "site" / "cortex_stream" / "cli.py"))

    with pytest.raises(OperatorError, match="is not the repository"):
        source_tree()
