"""The models that this worker serves: found by reference, asked with texts."""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Self

from cortex_stream.clock import Clock
from cortex_stream.deadline import Deadline
from cortex_stream.engine.stage import Matrix
from cortex_stream.errors import CortexError, InvariantError, UnknownModel
from cortex_stream.inference.model import LoadedModel
from cortex_stream.inference.tokenizer import TokenRow
from cortex_stream.routing.route import Task
from cortex_stream.scheduling.batcher import BatchRule
from cortex_stream.scheduling.dispatcher import Dispatcher
from cortex_stream.scheduling.fair_gate import FairGate
from cortex_stream.scheduling.runner_thread import Crew
from cortex_stream.scheduling.spare_time import SpareTime
from cortex_stream.values import value
from schemas.outcomes import ModelIdentity
from schemas.priority import Lane

INLINE_CHARS: Final = 8192
"""Shorter requests are tokenised on the event loop: 2 ms at most, where a hand-over to a thread
would cost more than the 0.05 ms that a usual text takes."""


@value()
class TextAnswers:
    """What a model says about texts.

    Attributes:
        matrix: float32, shape (texts, width): unit vectors, or the logits of a classifier.
        tokens: tokens that ran for each text, special tokens included.
        truncated: whether each text was longer than the model reads.
        queue_s: how long the request waited for a runner.
    """

    matrix: Matrix
    tokens: tuple[int, ...]
    truncated: tuple[bool, ...]
    queue_s: float


@dataclass(frozen=True, slots=True)
class KnownModel:
    """One model version as routes and outcomes need it, wherever it runs."""

    reference: str
    task: Task
    identity: ModelIdentity


class Tokenising:
    """The one thread that makes tokens of long texts, and whose turn it is."""

    def __init__(self) -> None:
        self.thread = ThreadPoolExecutor(1, thread_name_prefix="tokenise")
        self.turns = FairGate(1)


class ServedModel:
    """One model version with its runners."""

    def __init__(
        self,
        loaded: LoadedModel,
        dispatcher: Dispatcher[TokenRow],
        tokenising: Tokenising,
        *,
        batch_invariant: bool,
    ) -> None:
        self.loaded = loaded
        self.dispatcher = dispatcher
        self.identity = ModelIdentity(
            name=loaded.name,
            version=loaded.version,
            digest=loaded.digest,
            batch_invariant=batch_invariant,
        )
        self.reference = loaded.reference
        self.task: Task = loaded.task
        self._tokenising = tokenising

    def check_time(self, *, lane: Lane, tenant: str, deadline: Deadline | None) -> None:
        """Refuse what would be late when it begins; see `WaitingRows.check_time`.

        Raises:
            Expired: it would.
        """
        self.dispatcher.waiting.check_time(lane=lane, tenant=tenant, deadline=deadline)

    async def run(
        self,
        texts: Sequence[str],
        *,
        input_type: str | None,
        lane: Lane,
        tenant: str,
        deadline: Deadline | None,
    ) -> TextAnswers:
        """Return the model's numbers for `texts`, at least one.

        Raises:
            Expired, InferenceFailed, InvalidOutput, DeviceFailed, StuckRun: see `Dispatcher.submit`.
        """
        prefix = self.loaded.prefixes.get(input_type or "passage", "")
        chars = sum(map(len, texts))
        if chars <= INLINE_CHARS:
            rows = self.loaded.tokenizer.encode(texts, prefix=prefix)
        else:
            async with self._tokenising.turns.entered(
                lane=lane, tenant=tenant, deadline=deadline, cost=chars
            ):
                self.check_time(lane=lane, tenant=tenant, deadline=deadline)
                rows = await asyncio.get_running_loop().run_in_executor(
                    self._tokenising.thread,
                    lambda: self.loaded.tokenizer.encode(texts, prefix=prefix),
                )
        answers = await self.dispatcher.submit(rows, lane=lane, tenant=tenant, deadline=deadline)
        return TextAnswers(
            matrix=answers.matrix,
            tokens=tuple(row.tokens for row in rows),
            truncated=tuple(row.truncated for row in rows),
            queue_s=answers.queue_s,
        )


class ServedModels:
    """Every model version of this worker, running while the scope is open.

    Owner: the event loop that entered it.
    """

    def __init__(
        self,
        loaded: Sequence[LoadedModel],
        *,
        default: str,
        rule: Callable[[LoadedModel], BatchRule],
        run_timeout_s: float,
        clock: Clock,
        on_stuck: Callable[[CortexError], None],
        known: Sequence[KnownModel] = (),
    ) -> None:
        """Serve `loaded`; requests that name no model get `default`, a name.

        Of several versions of a name, the name alone means the one that comes last. `known`: those
        loaded here and those that other workers run; empty when there are no such.
        """
        self._default = default
        self._tokenising = Tokenising()
        spare = SpareTime(clock=clock)
        self._served = [
            ServedModel(
                model,
                Dispatcher(
                    Crew(model.runners, rule(model)),
                    standby=Crew(model.standby.runners, rule(model.standby))
                    if model.standby
                    else None,
                    model=model.reference,
                    run_timeout_s=run_timeout_s,
                    clock=clock,
                    on_stuck=on_stuck,
                    spare=spare,
                ),
                self._tokenising,
                # A text that runs alone has no company to depend on.
                batch_invariant=model.batch_invariant or rule(model).max_rows == 1,
            )
            for model in loaded
        ]
        served = {each.reference: each for each in self._served}
        self._known = [served.get(each.reference, each) for each in known] or self._served
        self._by_reference: dict[str, ServedModel | KnownModel] = {
            **{each.identity.name: each for each in self._known},
            **{each.reference: each for each in self._known},
        }
        self._scope = AsyncExitStack()

    def __iter__(self) -> Iterator[ServedModel]:
        """Iterate over the versions that run here."""
        return iter(self._served)

    def running(self, reference: str) -> ServedModel:
        """Return the version that `reference` names, for a stage that runs it here."""
        found = self.find(reference)
        if not isinstance(found, ServedModel):
            raise InvariantError(f"running {reference}, which is not loaded here; this is a bug")
        return found

    def find(self, reference: str | None) -> ServedModel | KnownModel:
        """Return the version that `reference` names, or the default, wherever it runs.

        Raises:
            UnknownModel: no worker serves such a version.
        """
        found = self._by_reference.get(reference or self._default)
        if found is None:
            here = ", ".join(each.reference for each in self._known)
            raise UnknownModel(
                f"data.model: {reference!r} is not served here; served: {here}"
                " (CORTEX_MODELS__SERVE)",
                field="data.model",
            )
        return found

    def switch(self, name: str, version: str | None) -> ServedModel | KnownModel | None:
        """Let a name mean that version from now on, with None the last; return what it means now.

        A version that is not served changes nothing. None: no version of that name is served.
        Requests that are being read in another thread mean the one or the other.
        """
        versions = {
            each.identity.version: each for each in self._known if each.identity.name == name
        }
        if not versions:
            return None
        meant = versions.get(list(versions)[-1] if version is None else version)
        if meant is not None:
            self._by_reference[name] = meant
        return self._by_reference[name]

    async def __aenter__(self) -> Self:
        """Start the runners."""
        for served in self._served:
            await self._scope.enter_async_context(served.dispatcher)
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop the runners and give the models' memory back."""
        await self._scope.__aexit__(exc_type, exc, traceback)
        self._tokenising.thread.shutdown(wait=False)
