"""The process: how it starts, what it serves, and what it says when it cannot start."""

import pytest

from cortex_stream.devstack import ports
from tests.integration.agents.scene import Scene

pytestmark = pytest.mark.integration

FAUST_PAGES = (
    "/assignment/",
    "/router/",
    "/router/assignment/",
    "/table/",
    "/graph",
    "/graph/",
    "/performance",
    "/performance/",
    "/stats/",
    "/production_index",
    "/livecheck/",
)


async def test_readiness_follows_the_partitions_and_the_end(scene: Scene) -> None:
    worker = scene.worker(CORTEX_KAFKA__DRAIN_TIMEOUT_S="2")
    await worker.says("web.listening")

    before = await worker.get("/readyz")
    await worker.is_ready()
    await scene.ask(10, do="hang")
    await scene.answered(await scene.ask(10))
    worker.process.terminate()
    await worker.says("worker.draining")
    draining = await worker.get("/readyz")

    assert before[0] == 503
    assert draining[0] == 503
    assert "draining" in draining[1]
    assert await worker.ends() == 0


async def test_two_workers_on_one_machine_take_two_ports_and_share_the_work(scene: Scene) -> None:
    wanted = ports.choose(preferred=None, avoid=())

    first = scene.worker(CORTEX_WEB__PORT=str(wanted))
    await first.is_ready()
    second = scene.worker(CORTEX_WEB__PORT=str(wanted))
    await second.is_ready()
    names = await scene.ask(500)
    await scene.answered(names)

    assert first.said("web.listening")[0]["port"] == wanted
    assert second.said("web.listening")[0]["port"] > wanted
    assert len({answer["pid"] for answer in scene.answers}) == 2


async def test_fausts_own_command_listens_where_we_say_and_serves_only_our_pages(
    scene: Scene,
) -> None:
    command = ("-m", "faust", "-A", "tests.integration.agents.stub_app", "worker")
    wanted = ports.choose(preferred=None, avoid=())

    worker = scene.worker(
        (*command, "--web-bind", "0.0.0.0", "--web-port", str(wanted)),  # noqa: S104 (must not work)
        CORTEX_WEB__PORT="6066",
        BROKER_URL="kafka://127.0.0.1:1",  # Faust's own variables, which must not work either
        WEB_BIND="0.0.0.0",  # noqa: S104
    )
    await worker.is_ready()
    await scene.answered(await scene.ask(100))

    (line,) = worker.said("web.listening")
    assert (line["host"], line["port"]) == ("127.0.0.1", wanted)
    for path in ("/livez", "/readyz", "/metrics"):
        assert (await worker.get(path))[0] == 200
    for path in FAUST_PAGES:
        assert (await worker.get(path))[0] == 404
    assert (await worker.terminate())[0] == 0


async def test_missing_topics_end_it_with_code_2_and_name_the_repair(scene: Scene) -> None:
    worker = scene.worker(CORTEX_KAFKA__TOPIC_PREFIX="nobody-made-these")

    assert await worker.ends() == 2
    (line,) = worker.said("worker.cannot_start")
    assert "cortex-stream topics apply" in line["repair"]
    assert "Traceback" not in worker.log.read_text()


async def test_it_waits_for_a_broker_that_is_not_there_yet(scene: Scene) -> None:
    nobody = ports.choose(preferred=None, avoid=())

    worker = scene.worker(KAFKA_BROKERS=f"127.0.0.1:{nobody}")
    lines = await worker.says("worker.waiting_for_kafka", times=2)
    status, _ = await worker.get("/readyz")
    code, took_s = await worker.terminate()

    assert f"127.0.0.1:{nobody}" in lines[0]["message"]
    assert lines[1]["again_in_s"] > lines[0]["again_in_s"]
    assert status == 503
    assert (code, took_s < 10) == (0, True)
    assert "Traceback" not in worker.log.read_text()
