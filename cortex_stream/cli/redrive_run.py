"""One run of `dead-letters redrive`: what it would send or sends, and what it leaves alone."""

from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from typing import Final

from rich.console import Console

from cortex_stream.cli.outcome_view import plain
from cortex_stream.cli.output import print_json
from cortex_stream.clock import SystemClock
from cortex_stream.dead_letters.letter import Letter
from cortex_stream.dead_letters.letterbox import read_turns, with_payload
from cortex_stream.dead_letters.redrive import (
    Reason,
    Redrive,
    Refusal,
    Turns,
    decide_redrive,
    letter_id,
)
from cortex_stream.dead_letters.redriver import Redriver
from cortex_stream.errors import BrokerUnavailable, OperatorError
from cortex_stream.kafka.producer import KafkaProducer
from cortex_stream.settings.tree import Settings

_EXAMPLES: Final = 5
_NO_TURNS: Final = Turns()


class RedriveRun:
    """Counts, and tells of each letter on a line of JSON if asked to.

    Attributes:
        taken: how many it has taken to be sent.
        sent: how many of them were sent, or would be.
        refusals: how many were left alone, by reason.
    """

    def __init__(
        self, settings: Settings, *, send: bool, again: bool, edited: bool, as_json: bool
    ) -> None:
        """Change nothing unless `send`; the others are as in `decide_redrive`."""
        self._settings = settings
        self._send = send
        self._again = again
        self._edited = edited
        self._as_json = as_json
        self.taken = 0
        self.sent = 0
        self.refusals: Counter[Reason] = Counter()
        self._examples: list[Refusal] = []
        self._last: Redrive | None = None

    async def over(
        self,
        letters: AsyncIterator[Letter],
        *,
        most: int | None,
        rate_per_s: float,
        principal: str,
    ) -> None:
        """Redrive `letters` as far as they may be, until `most` are taken.

        Raises:
            BrokerUnavailable: no broker answers; repeating the command goes on from there.
        """
        turns = await read_turns(self._settings)
        async with AsyncExitStack() as stack:
            redriver = None
            if self._send:
                producer = await stack.enter_async_context(KafkaProducer(self._settings))
                redriver = Redriver(
                    producer, principal=principal, clock=SystemClock(), rate_per_s=rate_per_s
                )
            async for letter in letters:
                match await self._decide(letter, turns):
                    case Refusal() as refusal:
                        self._leave(refusal)
                    case Redrive() as redrive:
                        self.taken += 1
                        self._tell([redrive] if redriver is None else await redriver.add(redrive))
                if self.taken == most:
                    break
            if redriver is not None:
                self._tell(await redriver.flush())

    def show(self, console: Console) -> None:
        """Print the counts, and why some letters are left alone."""
        what = f"{self.sent} {'letter' if self.sent == 1 else 'letters'}"
        if self._send:
            console.print(f"{what} put back")
        else:
            console.print(f"{what} would be put back" + ("; send with --yes" if self.sent else ""))
        if self.sent == 1 and self._last is not None and self._send:
            request_id = self._last.letter.asked.request_id
            console.print(plain(f"replay id {self._last.replay_id}"))
            if request_id is not None:
                console.print(
                    plain(f"its outcome: cortex-stream results --id {request_id}"), soft_wrap=True
                )
        for reason, number in self.refusals.most_common():
            console.print(f"{number} left alone: {reason.value}")
        for refusal in self._examples:
            console.print(plain(f"  {refusal.letter.place}: {refusal.text}"), soft_wrap=True)

    async def _decide(self, letter: Letter, turns: dict[str, Turns]) -> Redrive | Refusal:
        prefix = self._settings.kafka.topic_prefix
        before = turns.get(letter_id(letter, prefix=prefix), _NO_TURNS)
        try:
            letter = await with_payload(self._settings, letter)
        except BrokerUnavailable:
            raise
        except OperatorError as error:
            return Refusal(letter, Reason.NO_PAYLOAD, str(error))
        return decide_redrive(letter, before, prefix=prefix, again=self._again, edited=self._edited)

    def _leave(self, refusal: Refusal) -> None:
        self.refusals[refusal.reason] += 1
        if len(self._examples) < _EXAMPLES:
            self._examples.append(refusal)
        if self._as_json:
            print_json(
                {
                    "letter": str(refusal.letter.place),
                    "request_id": refusal.letter.asked.request_id,
                    "redrive": "left_alone",
                    "reason": refusal.reason.value,
                    "text": refusal.text,
                }
            )

    def _tell(self, redrives: Sequence[Redrive]) -> None:
        self.sent += len(redrives)
        for redrive in redrives:
            self._last = redrive
            if self._as_json:
                print_json(
                    {
                        "letter": str(redrive.letter.place),
                        "request_id": redrive.letter.asked.request_id,
                        "redrive": "sent" if self._send else "dry_run",
                        "replay_id": redrive.replay_id,
                        "topic": redrive.record.topic,
                    }
                )
