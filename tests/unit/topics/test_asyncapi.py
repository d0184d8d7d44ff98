from pathlib import Path
from typing import Any

import pytest

from schemas import dead_letters
from schemas.export import json_schemas
from topics.asyncapi import asyncapi_document
from topics.catalogue import CATALOGUE, CURRENT


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    return asyncapi_document(version="1.2.3")


def references(value: object) -> list[str]:
    """Return every `$ref` below `value`."""
    if isinstance(value, dict):
        own = [value["$ref"]] if "$ref" in value else []
        return own + [ref for child in value.values() for ref in references(child)]
    if isinstance(value, list):
        return [ref for child in value for ref in references(child)]
    return []


def test_every_topic_is_a_channel_with_its_size_in_production(document: dict[str, Any]) -> None:
    channels = document["channels"].values()

    assert [channel["address"] for channel in channels] == [spec.name for spec in CATALOGUE]
    assert [channel["bindings"]["kafka"]["partitions"] for channel in channels] == [
        spec.partitions("prod") for spec in CATALOGUE
    ]


def test_every_reference_leads_somewhere(document: dict[str, Any]) -> None:
    schemas = {f"{name}.json" for name in json_schemas()}
    for reference in references(document):
        if reference.startswith("#/"):
            target: Any = document
            for step in reference[2:].split("/"):
                target = target[step]
        else:
            assert Path(reference).parent == Path("../schemas/json")
            assert Path(reference).name in schemas


def test_only_topics_in_use_have_operations(document: dict[str, Any]) -> None:
    addressed = {
        operation["channel"]["$ref"].rpartition("/")[2]
        for operation in document["operations"].values()
    }

    assert addressed == {spec.name.replace(".", "-") for spec in CURRENT}


def test_requests_are_received_and_results_are_sent(document: dict[str, Any]) -> None:
    operations = document["operations"]

    assert operations["receive-cortex-requests-high"]["action"] == "receive"
    assert operations["send-cortex-results"]["action"] == "send"
    assert "send-cortex-requests-high" not in operations
    assert {"send-cortex-invalidations", "receive-cortex-invalidations"} <= operations.keys()


def test_dead_letters_name_every_header_of_ours(document: dict[str, Any]) -> None:
    headers = document["components"]["messages"]["dead-letter"]["headers"]["properties"]

    assert set(dead_letters.HEADERS) <= set(headers)
    assert document["channels"]["cortex-dead-letters"]["messages"] == {
        "dead-letter": {"$ref": "#/components/messages/dead-letter"}
    }
