"""Allowances in Redis, shared by all workers: `polos.allowances`, in one script by the server's own clock."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import redis.asyncio
from redis.exceptions import RedisError

from polos.allowances import KEPT_SECONDS, PATIENCE_SECONDS, Allowance, Answer, Question, Verdict
from polos.streaming.server import RedisServer, close_client

TIMEOUT_SECONDS = 1.0
MAX_AT_ONCE = 16  # each takes a connection, and hundreds of turns may begin in one moment
DOUBTED_SECONDS = 15.0
_ERRORS = (RedisError, OSError, asyncio.TimeoutError)
_UNBOUNDED = 1e12
Report = Callable[[BaseException | None], None]

# KEYS: allowance. ARGV: what is asked ("ask", "pause", "correct"), the time, its numbers. `doubted` is until
# when others may count elsewhere. Numbers of Lua would be cut to integers in the answer, so they are texts.
_SCRIPT = f"""
local names = {{'gate', 'tail', 'lag', 'paused', 'doubted'}}
local found = redis.call('HMGET', KEYS[1], unpack(names))
local is_new = not found[1]
local s = {{}}
for i, name in ipairs(names) do s[name] = tonumber(found[i] or '0') end
local time = redis.call('TIME')
local now = tonumber(ARGV[2]) or (tonumber(time[1]) + tonumber(time[2]) / 1000000)
local verdict, seconds, ticket, held = '', 0, '', 0

if ARGV[1] == 'pause' then
  local till = now + tonumber(ARGV[3])
  s.lag = s.lag + math.max(till - math.max(s.paused, now), 0)
  s.paused = math.max(s.paused, till)
elseif ARGV[1] == 'correct' then
  if is_new then return {{'', '0', '', '0', '0'}} end
  s.gate = s.gate + tonumber(ARGV[3])
  s.tail = s.tail + tonumber(ARGV[3])
else
  local cost, burst, longest = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[6])
  local drawn = tonumber(ARGV[5])
  if is_new or ARGV[8] == '1' then s.doubted = now + {DOUBTED_SECONDS} end
  if is_new or s.gate == 0 then s.gate = now + tonumber(ARGV[7]) end
  if not drawn then
    local clock = math.max(now, s.paused) - s.lag
    drawn = math.max(clock, s.tail - burst)
    if drawn + s.lag - now > longest then
      verdict, seconds = 'refused', drawn + s.lag - now
    else
      s.tail = math.max(s.tail, clock) + cost
    end
  end
  if verdict == '' then
    ticket = string.format('%.6f', drawn)
    local wait = drawn + s.lag - now
    local start = math.max(now, now + wait, now + tonumber(ARGV[9]), s.gate - burst, s.paused)
    if wait > {PATIENCE_SECONDS} then
      verdict, seconds = 'wait', wait
    elseif start - now > {PATIENCE_SECONDS} then
      s.lag = math.max(s.lag, start - drawn)
      verdict, seconds = 'wait', drawn + s.lag - now
    else
      s.gate = math.max(s.gate, start) + cost
      verdict, seconds, held = 'go', start - now, math.max(s.gate - burst - now, 0)
    end
  end
end

for _, name in ipairs(names) do redis.call('HSET', KEYS[1], name, string.format('%.6f', s[name])) end
local last = math.max(s.gate, s.tail + s.lag, s.paused, now)
redis.call('PEXPIRE', KEYS[1], math.ceil((last - now + {KEPT_SECONDS}) * 1000))
local is_doubted = s.doubted > now and '1' or '0'
return {{verdict, string.format('%.6f', seconds), ticket, string.format('%.6f', held), is_doubted}}
"""


class AllowancesAwayError(Exception):
    """Redis does not answer."""


@dataclass(frozen=True)
class Counted:
    """What Redis answered. `is_doubted`: others may have counted elsewhere lately."""

    answer: Answer
    is_doubted: bool


class SharedAllowances:
    """The allowances of one installation. Redis being away is reported, and raised.

    Args:
        server: The Redis or Valkey.
        prefix: Before every name.
        report: Told of each attempt that failed, and by None of each that did not.
        time: What time it is, instead of the server's own clock; empty where that counts.
    """

    def __init__(
        self,
        server: RedisServer,
        *,
        prefix: str,
        report: Report = lambda error: None,
        time: Callable[[], float | str] = lambda: "",
    ) -> None:
        self._server = server
        self._time = time
        self._prefix = f"{prefix}allowance:"
        self._report = report
        self._clients: WeakKeyDictionary[asyncio.AbstractEventLoop, redis.asyncio.Redis] = WeakKeyDictionary()
        self._asking = asyncio.Semaphore(MAX_AT_ONCE)

    async def ask(self, name: str, question: Question, *, was_away: bool = False) -> Counted:
        """Return what `question` comes to. `was_away`: the caller has counted elsewhere meanwhile.

        Raises:
            AllowancesAwayError: Redis does not answer.
        """
        verdict, seconds, ticket, held, is_doubted = await self._run(
            name,
            "ask",
            question.cost,
            question.burst,
            "" if question.ticket is None else f"{question.ticket:.6f}",
            min(question.longest, _UNBOUNDED),
            question.held,
            int(was_away),
            question.earliest,
        )
        answer = Answer(Verdict(verdict), float(seconds), float(ticket) if ticket else None, float(held))
        return Counted(answer, is_doubted == "1")

    async def pause(self, name: str, seconds: float) -> None:
        """Let nothing begin for so long.

        Raises:
            AllowancesAwayError: Redis does not answer.
        """
        await self._run(name, "pause", seconds)

    async def correct(self, name: str, seconds: float) -> None:
        """Count so many seconds more, or less.

        Raises:
            AllowancesAwayError: Redis does not answer.
        """
        await self._run(name, "correct", seconds)

    async def read_all(self, beginning: str) -> tuple[float, dict[str, Allowance]]:
        """Return the time, and the allowances whose names begin so.

        Raises:
            AllowancesAwayError: Redis does not answer.
        """
        try:
            client = self._client()
            seconds, microseconds = await client.time()
            keys = [key async for key in client.scan_iter(match=f"{self._prefix}{beginning}*", count=500)]
            found = {}
            for key in sorted(keys):
                fields: Any = await client.hgetall(key)
                given = {name: float(fields.get(name, 0.0)) for name in ("gate", "tail", "lag", "paused")}
                found[key.removeprefix(self._prefix)] = Allowance(**given)
        except _ERRORS as error:
            raise AllowancesAwayError(str(error)) from error
        return seconds + microseconds / 1e6, found

    async def close(self) -> None:
        """Close the connections of the running loop."""
        client = self._clients.pop(asyncio.get_running_loop(), None)
        if client is not None:
            await close_client(client)

    async def _run(self, name: str, wanted: str, *arguments: Any) -> list[str]:
        numbers = [str(argument) for argument in (self._time(), *arguments)]
        try:
            async with self._asking:
                found: list[str] = await self._client().eval(
                    _SCRIPT, 1, self._prefix + name, wanted, *numbers
                )
        except _ERRORS as error:
            self._report(error)
            raise AllowancesAwayError(str(error)) from error
        self._report(None)
        return found

    def _client(self) -> redis.asyncio.Redis:
        loop = asyncio.get_running_loop()
        if (client := self._clients.get(loop)) is None:
            client = self._clients[loop] = self._server.client(
                socket_timeout=TIMEOUT_SECONDS, socket_connect_timeout=TIMEOUT_SECONDS, decode_responses=True
            )
        return client
