"""The scripts that change sessions. Each does nothing where the hash is gone (BEGIN apart), and says the same
where it reaches Redis twice (END apart: what has ended is no longer there to be told). The keys of each lie
in one slot of a Cluster."""

from __future__ import annotations

from bff.sessions.record import SessionRecord, milliseconds
from bff.sessions.script import Script

BEGIN = Script("""
redis.call('DEL', KEYS[1])
redis.call('HSET', KEYS[1], unpack(ARGV, 3))
if ARGV[1] == '0' then redis.call('PEXPIREAT', KEYS[1], ARGV[2])
else redis.call('EXPIRE', KEYS[1], ARGV[1]) end
return 1
""")

# Who slides after a refresh on what it read before knows another end of the refresh token: it may put the
# session's end later, never earlier. (What is later than it should be is enforced by us on every read.)
SLIDE = Script("""
local seen = redis.call('HGET', KEYS[1], 's')
if not seen then return 0 end
if tonumber(ARGV[1]) > tonumber(seen) then
  redis.call('HSET', KEYS[1], 's', ARGV[1])
  local now = redis.call('TIME')
  local ends = now[1] * 1000 + math.floor(now[2] / 1000) + redis.call('PTTL', KEYS[1])
  if redis.call('HGET', KEYS[1], 'g') == ARGV[3] or tonumber(ARGV[2]) > ends then
    redis.call('PEXPIREAT', KEYS[1], ARGV[2])
  end
end
return 1
""")

SAVE_TOKENS = Script("""
local g = redis.call('HGET', KEYS[1], 'g')
if not g then return 'gone' end
if g ~= ARGV[1] then return redis.call('HGET', KEYS[1], 't') == ARGV[2] and 'saved' or 'newer' end
redis.call('HSET', KEYS[1], 't', ARGV[2], 'g', g + 1)
redis.call('HDEL', KEYS[1], 'r')
local idle_end = tonumber(redis.call('HGET', KEYS[1], 's')) + tonumber(ARGV[3])
redis.call('PEXPIREAT', KEYS[1], math.floor(math.min(idle_end, tonumber(ARGV[4])) * 1000))
return 'saved'
""")

SAVE_DATA = Script("""
if redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
for i = 1, #ARGV, 2 do
  if ARGV[i + 1] == '' then redis.call('HDEL', KEYS[1], ARGV[i])
  else redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1]) end
end
return 1
""")

END = Script("""
local fields = redis.call('HGETALL', KEYS[1])
redis.call('DEL', KEYS[1], KEYS[2])
if #fields > 0 then redis.call('SET', KEYS[3], ARGV[1], 'EX', ARGV[2]) end
return fields
""")

END_IF = Script("""
if redis.call('HGET', KEYS[1], 'g') ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[3], ARGV[2], 'EX', ARGV[3])
return redis.call('DEL', KEYS[1], KEYS[2])
""")

# The field `r` says who began to redeem the tokens of which generation. Where a lease has run out although
# nobody gave it back, that redeem may have been answered: by a process that is cut off from Redis and is
# about to save. It gets a moment to do so before somebody else redeems the same token.
LEASE = Script("""
local g = redis.call('HGET', KEYS[1], 'g')
if not g then return 'gone' end
if g ~= ARGV[1] then return 'newer' end
local owner = redis.call('GET', KEYS[2])
if owner == ARGV[2] then
  redis.call('PEXPIRE', KEYS[2], ARGV[3])
  return 'yours'
end
if owner == 'pause' then return 'pause' end
if owner then return 'held' end
local mine, waited = g .. ' ' .. ARGV[2], g .. ' waited'
local begun = redis.call('HGET', KEYS[1], 'r')
if begun and begun ~= mine and begun ~= waited and string.sub(begun, 1, #g + 1) == g .. ' ' then
  redis.call('HSET', KEYS[1], 'r', waited)
  redis.call('SET', KEYS[2], 'waiting', 'PX', ARGV[4])
  return 'held'
end
redis.call('SET', KEYS[2], ARGV[2], 'PX', ARGV[3])
redis.call('HSET', KEYS[1], 'r', mine)
return 'yours'
""")

RENEW = Script("""
if redis.call('GET', KEYS[2]) ~= ARGV[1] then return 0 end
return redis.call('PEXPIRE', KEYS[2], ARGV[2])
""")

CLAIM = Script("""
if redis.call('SET', KEYS[1], ARGV[1], 'NX', 'EX', ARGV[2]) then return 1 end
return redis.call('GET', KEYS[1]) == ARGV[1] and 1 or 0
""")

OVERTAKE = Script("""
local earlier = {}
for i = 1, #KEYS do
  local place = redis.call('LPOS', KEYS[i], ARGV[1])
  if not place then place = redis.call('RPUSH', KEYS[i], ARGV[1]) - 1 end
  redis.call('EXPIRE', KEYS[i], ARGV[2])
  if place > 0 then
    for _, name in ipairs(redis.call('LRANGE', KEYS[i], 0, place - 1)) do table.insert(earlier, name) end
  end
  redis.call('LTRIM', KEYS[i], -100, -1)
end
return earlier
""")

RELEASE = Script("""
if redis.call('GET', KEYS[2]) ~= ARGV[1] then return 0 end
redis.call('HDEL', KEYS[1], 'r')
if tonumber(ARGV[2]) > 0 and redis.call('EXISTS', KEYS[1]) == 1
then redis.call('SET', KEYS[2], 'pause', 'PX', ARGV[2])
else redis.call('DEL', KEYS[2]) end
return 1
""")


def slide_arguments(record: SessionRecord, seen: float, end: float) -> list[str | int | bytes]:
    """Of SLIDE: when the session was seen, and when it ends with these tokens, in seconds."""
    return [repr(seen), milliseconds(end), record.generation]
