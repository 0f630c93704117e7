"""The atomic steps of `bus/sessions.py`, in Redis' Lua. All keys of one call carry one hash tag.

A request's row is a hash: `s` state, `d` sealed document, `w` the worker that runs it, `cancel`.
"""

ACCEPT = """
if redis.call('HSETNX', KEYS[1], 's', 'queued') == 1 then
  redis.call('HSET', KEYS[1], 'd', ARGV[1])
  redis.call('EXPIRE', KEYS[1], ARGV[2])
end
return 1
"""

# KEYS: row, history, owner. ARGV: worker, document, age, stateful, force, history age.
BEGIN = """
local s = redis.call('HGET', KEYS[1], 's')
if s == 'answered' or s == 'dead' then
  return {'done', redis.call('HGET', KEYS[1], 'd'), 0, {}}
end
local me, force = ARGV[1], ARGV[5] == '1'
local owner = redis.call('HGET', KEYS[1], 'w')
if not owner and ARGV[4] == '1' then owner = redis.call('GET', KEYS[3]) end
if owner and owner ~= me and not force then
  return {'owned', owner, 0, {}}
end
redis.call('HSET', KEYS[1], 's', 'running', 'w', me)
redis.call('HSETNX', KEYS[1], 'd', ARGV[2])
redis.call('EXPIRE', KEYS[1], ARGV[3])
local lines = {}
if ARGV[4] == '1' then
  redis.call('SET', KEYS[3], me, 'EX', ARGV[6])
  lines = redis.call('LRANGE', KEYS[2], 0, -1)
end
return {'begun', '', redis.call('HEXISTS', KEYS[1], 'cancel'), lines}
"""

# KEYS: row, history, forgotten. ARGV: state, document, age, history age, drop, asked at, entries...
# A conversation that was deleted after the question came does not come back with its answer.
FINISH = """
local s = redis.call('HGET', KEYS[1], 's')
if s == 'answered' or s == 'dead' then
  return redis.call('HGET', KEYS[1], 'd')
end
redis.call('HSET', KEYS[1], 's', ARGV[1], 'd', ARGV[2])
redis.call('EXPIRE', KEYS[1], ARGV[3])
local forgotten = redis.call('GET', KEYS[3])
if #ARGV > 6 and not (forgotten and tonumber(ARGV[6]) <= tonumber(forgotten)) then
  for i = 7, #ARGV do redis.call('RPUSH', KEYS[2], ARGV[i]) end
  if tonumber(ARGV[5]) > 0 then redis.call('LTRIM', KEYS[2], ARGV[5], -1) end
  redis.call('EXPIRE', KEYS[2], ARGV[4])
end
return false
"""
