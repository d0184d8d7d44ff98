"""The memory of the dedupe window, in Redis: one connection, one script.

Invariant: a connection whose reply was not read to its end is closed, so that no call can read what
belongs to an earlier one. (Clients that keep it have mixed up replies after a cancelled call.)

Owner: one task.
"""

from collections.abc import Collection, Sequence
from typing import Final

from pydantic import SecretStr
from redis.asyncio.connection import AbstractConnection, ConnectionPool
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from cortex_stream.dedupe.fingerprint import DIGEST_BYTES, Fingerprint
from cortex_stream.errors import OperatorError

# KEYS: whose; ARGV: how long in ms, and the payloads in a row. Returns the positions from 1 that are
# remembered with another payload. Sent in full, which Redis knows by its hash: nothing to load.
_SCRIPT: Final = f"""
local conflicting = {{}}
for i, key in ipairs(KEYS) do
  local payload = string.sub(ARGV[2], {DIGEST_BYTES} * (i - 1) + 1, {DIGEST_BYTES} * i)
  if not redis.call('SET', key, payload, 'NX', 'PX', ARGV[1])
      and redis.call('GET', key) ~= payload then
    conflicting[#conflicting + 1] = i
  end
end
return conflicting
""".encode()


class RedisMemory:
    """See `dedupe.window.Memory`. Connects with the first call, and after a failure anew."""

    def __init__(self, url: SecretStr, *, window_s: float) -> None:
        """Remember each request for `window_s`.

        Raises:
            OperatorError: the address cannot be read. It is not quoted, for it may hold a password.
        """
        try:
            pool = ConnectionPool.from_url(
                url.get_secret_value(),
                protocol=2,
                socket_keepalive=True,
                retry=Retry(NoBackoff(), 0),  # the circuit decides when to try again
            )
        except (ValueError, RedisError):
            raise OperatorError(
                "reading REDIS_URL: it is no address such as redis://:password@host:6379/0",
                repair="mend REDIS_URL, or unset it to go without a dedupe window",
            ) from None
        self._connection: AbstractConnection = pool.make_connection()  # type: ignore[no-untyped-call]
        self._window_ms = round(window_s * 1000)

    async def conflicting(self, asked: Sequence[Fingerprint]) -> Collection[int]:
        """Remember what is new; return the positions that are known with another payload.

        Raises:
            RedisError, OSError: Redis did not answer so.
        """
        keys = [each.key for each in asked]
        payloads = b"".join([each.payload for each in asked])
        try:
            await self._connection.send_command(
                "EVAL", _SCRIPT, len(keys), *keys, self._window_ms, payloads
            )
            found: list[int] = await self._connection.read_response()
        except BaseException:
            await self.close()
            raise
        return {position - 1 for position in found}

    async def close(self) -> None:
        """Close the connection, at once and whatever is under way. Idempotent."""
        await self._connection.disconnect(nowait=True)
