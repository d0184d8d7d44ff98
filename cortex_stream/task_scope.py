"""The one creator of background tasks: every task has an owner that stops it."""

import asyncio
from collections.abc import Coroutine
from types import TracebackType
from typing import Any, Self


class TaskScope:
    """Owns background tasks; leaving the scope cancels what still runs and waits for its end.

    The first task that fails ends the scope: `wait_failed` raises its error, and so does leaving
    the scope. Unlike `asyncio.TaskGroup` it does not wait for its tasks to finish by themselves,
    since most of ours run for ever.

    Owner: the event loop it was entered on.
    """

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()
        self._failure: asyncio.Future[None] | None = None

    async def __aenter__(self) -> Self:
        """Begin the scope on the running loop."""
        self._failure = asyncio.get_running_loop().create_future()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Cancel and await every task; raise the first failure unless another error is leaving."""
        await self.close()
        failure, self._failure = self._failure, None  # nothing can be started any more
        if failure is not None and failure.done() and not failure.cancelled():
            error = failure.exception()
            if error is not None and exc is None:
                raise error

    def start(self, coroutine: Coroutine[Any, Any, Any], *, name: str) -> asyncio.Task[Any]:
        """Run `coroutine` in the background under `name` until it ends or the scope does."""
        if self._failure is None:
            coroutine.close()
            raise RuntimeError(f"starting task {name!r} outside its scope; this is a bug")
        task = asyncio.get_running_loop().create_task(coroutine, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def __len__(self) -> int:
        """Return how many tasks run."""
        return len(self._tasks)

    async def wait_failed(self) -> None:
        """Wait until a task fails, then raise its error."""
        if self._failure is None:
            raise RuntimeError("waiting outside the scope; this is a bug")
        await asyncio.shield(self._failure)

    async def close(self) -> None:
        """Cancel every task and wait for its end. Idempotent."""
        while self._tasks:
            tasks = list(self._tasks)
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            self._tasks.difference_update(tasks)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if task.cancelled():
            return
        error = task.exception()
        if error is not None and self._failure is not None and not self._failure.done():
            self._failure.set_exception(error)
            self._failure.exception()  # seen: leaving the scope without waiting warns nobody
