"""What the server runs as a whole: Lua. `local` only; all times are the server's (`TIME`).

Numbers in Lua are doubles: integers of 64 bits are added to by INCRBY and HINCRBY, which are exact, never by Lua.
Doubles go back as text of 17 digits, because Redis cuts a Lua number that is returned to an integer.
"""

from __future__ import annotations

from typing import Final

SWAP: Final = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
if ARGV[3] == '' then redis.call('SET', KEYS[1], ARGV[2])
else redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3]) end
return 1
"""
"""KEYS: entry. ARGV: what is expected, what to store, milliseconds to live or ''. Returns 1 or 0."""

INCREMENT: Final = """
local payload = redis.call('GET', KEYS[1])
local life = -1
if payload then
  if string.sub(payload, 1, 1) ~= 'i' then return redis.error_reply('NOTANUMBER no integer') end
  life = redis.call('PTTL', KEYS[1])
elseif ARGV[2] == '' then return false
else
  payload = 'i' .. ARGV[2]
  if ARGV[3] ~= '' then life = tonumber(ARGV[3]) end
end
redis.call('SET', KEYS[2], string.sub(payload, 2))
local sum = redis.pcall('INCRBY', KEYS[2], ARGV[1])
local digits = redis.call('GET', KEYS[2])
redis.call('DEL', KEYS[2])
if type(sum) == 'table' then return redis.error_reply('NOTANUMBER too large') end
if life >= 0 then redis.call('SET', KEYS[1], 'i' .. digits, 'PX', math.max(1, life))
else redis.call('SET', KEYS[1], 'i' .. digits) end
return digits
"""
"""KEYS: entry, scratch. ARGV: amount, what to begin from or '', milliseconds to live or ''. Returns the digits of the sum, or nothing.

The sum is made at a key beside, which nobody sees: scripts are alone. So an entry is never what its readers cannot read.
"""

ADD: Final = """
for i = 1, #ARGV, 3 do
  local name, kind, amount = ARGV[i], ARGV[i + 1], ARGV[i + 2]
  local answer
  if kind == 'i' and redis.call('HEXISTS', KEYS[2], name) == 0 then
    answer = redis.pcall('HINCRBY', KEYS[1], name, amount)
  elseif redis.call('HEXISTS', KEYS[1], name) == 1 then
    return redis.error_reply('NOTANUMBER counts in integers')
  else
    answer = redis.pcall('HINCRBYFLOAT', KEYS[2], name, amount)
  end
  if type(answer) == 'table' and answer.err then return redis.error_reply('NOTANUMBER ' .. answer.err) end
end
return 1
"""
"""KEYS: integers, floats. ARGV: name, 'i' or 'f', amount, and so on. A number stays of the kind of its first amount."""

RESET: Final = """
for i = 1, 2 do
  local value = redis.call('HGET', KEYS[i], ARGV[1])
  if value then
    redis.call('HSET', KEYS[i], ARGV[1], '0')
    return {i, value}
  end
end
return {1, '0'}
"""
"""KEYS: integers, floats. ARGV: name. Returns where it was, and what it was."""

_NOW: Final = """
local time = redis.call('TIME')
local now = time[1] + time[2] / 1000000
local function text(number) return string.format('%.17g', number) end
"""

TAKE_TOKENS: Final = (
    _NOW
    + """
local per_s, burst, amount = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local full = math.max(now, tonumber(redis.call('GET', KEYS[1]) or '0'))
local tokens = burst - (full - now) * per_s
if amount > burst then return {0, text(math.max(0, tokens)), 'inf'} end
if amount > tokens + burst * 1e-9 then
  return {0, text(math.max(0, tokens)), text((amount - tokens) / per_s)}
end
full = full + amount / per_s
redis.call('SET', KEYS[1], text(full), 'PX', string.format('%.0f', math.ceil((full - now + 1) * 1000)))
return {1, text(math.max(0, tokens - amount)), '0'}
"""
)
"""As `limits.py`, whose arithmetic this is: kept is the moment at which the bucket is full again.

KEYS: the bucket. ARGV: tokens a second, burst, amount. Returns whether, how much is left, seconds until it may be taken.
"""

TAKE_WINDOW: Final = (
    _NOW
    + """
local limit, window, amount = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local number = math.floor(now / window)
local into = now - number * window
local count, before = 0, 0
local state = redis.call('GET', KEYS[1])
if state then
  local last, last_count, last_before = string.match(state, '(%S+) (%S+) (%S+)')
  last = tonumber(last)
  if last == number then count, before = tonumber(last_count), tonumber(last_before)
  elseif last == number - 1 then before = tonumber(last_count) end
end
local remaining = limit - count - before * (1 - into / window)
if amount > limit then return {0, text(math.max(0, remaining)), 'inf'} end
if amount > remaining + limit * 1e-9 then
  local room, wait = limit - amount, 0
  if count <= room then wait = math.max(0, window * (1 - (room - count) / before) - into)
  else wait = window - into + window * (1 - room / count) end
  return {0, text(math.max(0, remaining)), text(wait)}
end
redis.call('SET', KEYS[1], text(number) .. ' ' .. text(count + amount) .. ' ' .. text(before),
  'PX', string.format('%.0f', math.max(1, math.ceil(2000 * window))))
return {1, text(math.max(0, remaining - amount)), '0'}
"""
)
"""As `limits.py`: kept are the number of the window, its count, and that of the one before.

KEYS: the window. ARGV: limit, seconds of a window, amount. Returns as `TAKE_TOKENS`.
"""

LOCK: Final = """
if redis.call('EXISTS', KEYS[1]) == 1 then return false end
local fencing = redis.call('INCR', KEYS[2])
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return fencing
"""
"""KEYS: lock, fencing. ARGV: token, milliseconds of the lease. Returns the holder's number, or nothing."""

RENEW: Final = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('PEXPIRE', KEYS[1], ARGV[2])
"""
"""KEYS: lock. ARGV: token, milliseconds. Returns whether it is still its holder's."""

UNLOCK: Final = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
redis.call('DEL', KEYS[1])
redis.call('PUBLISH', ARGV[2], '')
return 1
"""
"""KEYS: lock. ARGV: token, the channel of those who wait. Returns whether it was its holder's until now."""
