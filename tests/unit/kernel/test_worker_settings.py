import pytest

from cortex_stream.errors import OperatorError
from cortex_stream.settings.kafka import KafkaSettings
from cortex_stream.settings.stages import ALL_STAGES, WorkerSettings
from cortex_stream.settings.tree import Settings, load_settings


def test_a_worker_hosts_every_stage_unless_told_otherwise() -> None:
    worker = Settings().worker

    assert worker.stages == ALL_STAGES
    assert not worker.split


def test_stages_are_read_from_the_environment_in_whatever_order(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CORTEX_WORKER__STAGES", '["inference","embedding"]')

    worker = load_settings().worker

    assert worker.stages == ("embedding", "inference")
    assert worker.split


@pytest.mark.parametrize("stages", ["[]", '["embeding"]', '["embedding","embedding"]', "embedding"])
def test_wrong_stages_are_refused_by_their_variable(
    stages: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CORTEX_WORKER__STAGES", stages)

    with pytest.raises(OperatorError, match=r"(?i)worker"):
        load_settings()


def test_each_kind_of_workers_is_a_group_of_its_own() -> None:
    def group(*stages: str) -> str:
        worker = WorkerSettings.model_validate({"stages": stages})
        return Settings(worker=worker, kafka=KafkaSettings(topic_prefix="staging")).group

    assert group(*ALL_STAGES) == "staging.cortex-stream"
    assert group("validation") == "staging.cortex-stream.validation"
    assert group("inference", "embedding") == "staging.cortex-stream.embedding.inference"
