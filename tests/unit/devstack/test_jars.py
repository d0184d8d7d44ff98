import re

import pytest

from cortex_stream.devstack import programs
from cortex_stream.devstack.jars import KAFKA_VERSION, pinned_jars
from cortex_stream.errors import StackFailed


def test_every_jar_is_pinned_by_digest_and_size() -> None:
    jars = pinned_jars()

    assert all(re.fullmatch(r"[0-9a-f]{64}", jar.sha256) for jar in jars)
    assert all(jar.size_bytes for jar in jars)
    assert len({jar.path for jar in jars}) == len(jars)


def test_the_pinned_broker_is_the_version_we_announce() -> None:
    versions = {jar.version for jar in pinned_jars() if jar.name in {"kafka_2.13", "kafka-clients"}}

    assert versions == {KAFKA_VERSION}


def test_a_missing_package_is_named_with_the_extra_that_brings_it() -> None:
    with pytest.raises(StackFailed, match="package no_such_package") as failure:
        programs.packaged("no_such_package", "bin", "server")

    assert "cortex-stream[stack]" in (failure.value.repair or "")
