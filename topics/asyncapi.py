"""The AsyncAPI 3.0 document: every topic, who sends and receives, and what the records look like.

Pure: catalogue and schemas in, one JSON-like value out.
"""

from typing import Any, Final

from schemas import dead_letters
from schemas.export import EXPORTED
from topics.catalogue import CATALOGUE, Direction, TopicSpec, replication
from topics.names import DEAD_LETTERS

_BINDING_VERSION: Final = "0.5.0"
_DEAD_LETTER: Final = "dead-letter"
_ACTIONS: Final = {
    Direction.IN: ("receive",),
    Direction.OUT: ("send",),
    Direction.BOTH: ("send", "receive"),
    Direction.INTERNAL: ("send", "receive"),
}
_DESCRIPTION: Final = """\
Requests and events are CloudEvents 1.0: structured JSON by default, binary mode (`ce_*` headers,
`data` as the value) is accepted too. Outcomes are always structured JSON.

A record whose Kafka timestamp is older than its topic keeps, or more than an hour ahead, is refused
with INVALID_TIMESTAMP on the topics that clients write to: with its whole batch.

Delivery is at least once; the first record with an outcome id in its partition is the outcome, and
only a `result` replaces an earlier `expired` or `dead_letter` (docs/operations/one-outcome.md).

Topic names are shown without the prefix of an environment, partitions and replicas as in
production. Topics marked `x-planned` belong to a later release.
"""


def asyncapi_document(*, version: str) -> dict[str, Any]:
    """Return the document of release `version`; payloads refer to the files in `schemas/json/`."""
    return {
        "asyncapi": "3.0.0",
        "info": {"title": "Cortex Stream", "version": version, "description": _DESCRIPTION},
        "defaultContentType": "application/json",
        "servers": {"local": {"host": "127.0.0.1:9092", "protocol": "kafka"}},
        "channels": {_identifier(spec): _channel(spec) for spec in CATALOGUE},
        "operations": {
            f"{action}-{_identifier(spec)}": {
                "action": action,
                "channel": {"$ref": f"#/channels/{_identifier(spec)}"},
                "summary": _summary(spec, action),
            }
            for spec in CATALOGUE
            if not spec.planned
            for action in _ACTIONS[spec.direction]
        },
        "components": {
            "messages": {
                **{_message_identifier(name): _message(name) for name in EXPORTED},
                _DEAD_LETTER: _dead_letter(),
            }
        },
    }


def _channel(spec: TopicSpec) -> dict[str, Any]:
    messages = [_message_identifier(name) for name in spec.messages]
    if spec.name == DEAD_LETTERS:
        messages = [_DEAD_LETTER]
    config: dict[str, Any] = {
        key: int(value) if value.isdigit() else value for key, value in spec.config("prod").items()
    }
    config["cleanup.policy"] = spec.cleanup_policy.split(",")
    return {
        "address": spec.name,
        "description": f"{spec.holds}. Written by: {spec.written_by}.",
        **({"x-planned": True} if spec.planned else {}),
        "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in messages},
        "bindings": {
            "kafka": {
                "topic": spec.name,
                "partitions": spec.partitions("prod"),
                "replicas": replication("prod"),
                "topicConfiguration": config,
                "bindingVersion": _BINDING_VERSION,
            }
        },
    }


def _message(name: str) -> dict[str, Any]:
    model = EXPORTED[name]
    return {
        "title": model.__name__,
        "summary": (model.__doc__ or "").partition("\n")[0],
        "payload": {"$ref": f"../schemas/json/{name}.json"},
        "bindings": _key_binding(_key_of(name)),
    }


def _dead_letter() -> dict[str, Any]:
    return {
        "title": "DeadLetter",
        "summary": "The failed record as it came, with what went wrong in headers beside its own.",
        "contentType": "application/octet-stream",
        "headers": {
            "type": "object",
            "properties": {
                header: {"type": "string"}
                for header in (
                    *dead_letters.HEADERS,
                    dead_letters.TRUNCATED,
                    dead_letters.REDRIVE_COUNT,
                )
            },
        },
        "bindings": _key_binding("as the source record"),
    }


def _key_binding(meaning: str) -> dict[str, Any]:
    key = {"type": "string", "description": meaning}
    return {"kafka": {"key": key, "bindingVersion": _BINDING_VERSION}}


def _key_of(message: str) -> str:
    return next(spec.key for spec in CATALOGUE if message in spec.messages)


def _summary(spec: TopicSpec, action: str) -> str:
    return f"Cortex Stream {action}s {spec.holds.partition(';')[0]}."


def _identifier(spec: TopicSpec) -> str:
    return spec.name.replace(".", "-")


def _message_identifier(name: str) -> str:
    return name.removesuffix(".v1")
