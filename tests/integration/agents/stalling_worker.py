"""The stub worker, but what the file of its one argument says goes wrong from when the file is there.

`fetch TOPIC PARTITION`: that partition's fetches are dropped, as if Kafka never answered them;
`loop`: the event loop hangs.
"""

import asyncio
import sys
import threading
from pathlib import Path
from typing import Any
from unittest.mock import patch

from aiokafka.consumer.fetcher import Fetcher

from agents.faust_worker import EdgeWorker
from tests.integration.agents.stub_worker import build_app

_fetch = Fetcher._proc_fetch_request


def main() -> None:
    trouble = Path(sys.argv.pop())

    def said() -> list[str]:
        return trouble.read_text().split() if trouble.is_file() else []

    async def fetch_others(self: Any, assignment: Any, node_id: int, request: Any) -> Any:
        match said():
            case ["fetch", topic, partition]:
                request._topics = [
                    (each, [p for p in of if (each, p[0]) != (topic, int(partition))])
                    for each, of in request.topics
                ]
            case _:
                pass
        return await _fetch(self, assignment, node_id, request)

    async def hang() -> None:
        while said() != ["loop"]:
            await asyncio.sleep(0.05)
        threading.Event().wait()

    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    app = build_app()
    app.finalize()
    hanging = loop.create_task(hang())
    with patch.object(Fetcher, "_proc_fetch_request", fetch_others):
        EdgeWorker(app, quiet=True, loop=loop).execute_from_commandline()
    hanging.cancel()


if __name__ == "__main__":
    main()
