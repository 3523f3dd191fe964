-- The shared ledger's one script. Each call is one step for all replicas: nothing happens between its check and its
-- claim, and nothing is left locked when a replica dies. Times are milliseconds of this Redis' own clock.
--
-- KEYS  1 state      hash    epoch, founded, version, beat
--       2 records    hash    reservation id -> JSON, see record()
--       3 seen       hash    reservation id -> label of the instance that has taken it over
--       4 hosts      hash    host -> ids of the living reservations there, oldest first, a space between
--       5 changed    zset    host -> version of the last change there
--       6 ends       zset    reservation id -> when its time is up
--       7 requests   hash    request_id -> reservation id
--       8 released   zset    reservation id -> when its time would have been up
-- ARGV  1 operation, 2 epoch, 3 version: what the caller knows; then what the operation wants
--
-- Answers {epoch, version, time, outcome, detail, {{host, version, {id, record, label, ...}}, ...}}: the detail is the id
-- of the reservation that was made or known, or when the epoch began; the hosts are those that have changed since the
-- version that the caller knew.

local STATE, RECORDS, SEEN, HOSTS = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local CHANGED, ENDS, REQUESTS, RELEASED = KEYS[5], KEYS[6], KEYS[7], KEYS[8]
local HEAD = '^{"expires":(%d+),"cpu":(%d+),"memory":(%d+),"promised":(%a+)'
local MARGIN = 60000         -- for which keys outlive what they hold
local REMEMBERED = 3600000   -- for which an idle fleet's epoch is kept
local SWEPT = 100            -- how many ended reservations one call clears away

local operation, epoch, known = ARGV[1], ARGV[2], tonumber(ARGV[3])
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local position = 3

local function take()
  position = position + 1
  return ARGV[position]
end

local function take_number()
  return tonumber(take())
end

local function whole(number)
  return string.format('%.0f', number)
end

local function touch(host)
  local version = redis.call('HINCRBY', STATE, 'version', 1)
  redis.call('ZADD', CHANGED, version, host)
end

local function ids_on(host)
  local ids = {}
  for id in string.gmatch(redis.call('HGET', HOSTS, host) or '', '%S+') do
    ids[#ids + 1] = id
  end
  return ids
end

local function put_on(host, ids)
  if #ids > 0 then
    redis.call('HSET', HOSTS, host, table.concat(ids, ' '))
  else
    redis.call('HDEL', HOSTS, host)
  end
end

-- Forget a reservation; returns its host, or nil when there is none.
local function drop(id)
  redis.call('ZREM', ENDS, id)
  redis.call('HDEL', SEEN, id)
  local record = redis.call('HGET', RECORDS, id)
  if not record then
    return nil
  end
  redis.call('HDEL', RECORDS, id)
  local said = cjson.decode(record)
  local request = said.demand.request_id
  if type(request) == 'string' and redis.call('HGET', REQUESTS, request) == id then
    redis.call('HDEL', REQUESTS, request)
  end
  local left = {}
  for _, each in ipairs(ids_on(said.host)) do
    if each ~= id then
      left[#left + 1] = each
    end
  end
  put_on(said.host, left)
  return said.host
end

-- Clear away what has ended. The replicas know by themselves when that was, so no host counts as changed.
local function sweep()
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', ENDS, '-inf', now, 'LIMIT', 0, SWEPT)) do
    drop(id)
  end
  redis.call('ZREMRANGEBYSCORE', RELEASED, '-inf', now)
end

-- Let the keys go some time after the last reservation, should all replicas die.
local function keep()
  local last = redis.call('ZRANGE', ENDS, -1, -1, 'WITHSCORES')
  local longest = math.max((tonumber(last[2]) or now) - now, 0) + MARGIN
  for number = 2, #KEYS do
    redis.call('PEXPIRE', KEYS[number], whole(longest))
  end
  redis.call('PEXPIRE', STATE, whole(math.max(longest, REMEMBERED)))
end

local function record(expires, cpu, memory, promised, created, host, rest)
  return '{"expires":' .. whole(expires) .. ',"cpu":' .. cpu .. ',"memory":' .. memory .. ',"promised":' .. promised
    .. ',"created":' .. whole(created) .. ',"host":' .. cjson.encode(host) .. ',' .. rest
end

local function insert(id, host, request, expires, text)
  redis.call('HSET', RECORDS, id, text)
  redis.call('ZADD', ENDS, whole(expires), id)
  local ids = ids_on(host)
  ids[#ids + 1] = id
  put_on(host, ids)
  if request ~= '' then
    redis.call('HSETNX', REQUESTS, request, id)
  end
  touch(host)
end

local function absent(value)
  return value == nil or value == cjson.null
end

local function meets(one, other)
  return (absent(one.resource_type) or absent(other.resource_type) or one.resource_type == other.resource_type)
    and (absent(one.image_alias) or absent(other.image_alias) or one.image_alias == other.image_alias)
end

-- What is claimed on a host for a caller whose view shows the instances of these reservations: {id: label}. One that
-- was taken over by an instance that the caller does not see still counts: its view is older than that instance.
local function claims(host, shown)
  local cpu, memory, promises = 0, 0, {}
  for _, id in ipairs(ids_on(host)) do
    local text = redis.call('HGET', RECORDS, id)
    if text then
      local expires, its_cpu, its_memory, promised = string.match(text, HEAD)
      local seen_here = shown[id] and redis.call('HGET', SEEN, id) == shown[id]
      if tonumber(expires) > now and not seen_here then
        cpu, memory = cpu + tonumber(its_cpu), memory + tonumber(its_memory)
        if promised == 'true' then
          promises[#promises + 1] = cjson.decode(text).demand.pool
        end
      end
    end
  end
  return cpu, memory, promises
end

-- The first candidate with room is claimed. `exact` asks for the first one alone, and only if what is claimed there is
-- what the caller ranked it by: else it hears what has changed, and ranks anew.
local function reserve()
  local id, life, request, exact = take(), take_number(), take(), take() == '1'
  local cpu, memory, pool, rest = take(), take(), take(), take()
  if pool ~= '' then
    pool = cjson.decode(pool)
  else
    pool = nil
  end
  if request ~= '' then
    local earlier = redis.call('HGET', REQUESTS, request)
    local text = earlier and redis.call('HGET', RECORDS, earlier)
    if text and tonumber((string.match(text, HEAD))) > now then
      touch(cjson.decode(text).host) -- so that the answer shows it
      return 'known', earlier
    end
  end
  if redis.call('ZSCORE', RELEASED, id) then
    return 'gone', id
  end
  for number = 1, take_number() do
    local host, room_cpu, room_memory, ready = take(), take_number(), take_number(), take_number()
    local assumed_cpu, assumed_memory, assumed_promises = take_number(), take_number(), take_number()
    local shown = {}
    for _ = 1, take_number() do
      local taken_over = take()
      shown[taken_over] = take()
    end
    local claimed_cpu, claimed_memory, promises = claims(host, shown)
    if exact and (claimed_cpu ~= assumed_cpu or claimed_memory ~= assumed_memory or #promises ~= assumed_promises) then
      return 'moved', ''
    end
    if room_cpu - claimed_cpu >= tonumber(cpu) and room_memory - claimed_memory >= tonumber(memory) then
      local promised = 0
      for _, each in ipairs(promises) do
        if pool and meets(each, pool) then
          promised = promised + 1
        end
      end
      local stocked = tostring(pool ~= nil and ready > promised)
      insert(id, host, request, now + life, record(now + life, cpu, memory, stocked, now, host, rest))
      return 'made', id
    end
  end
  return 'full', ''
end

local function created(id)
  return tonumber(string.match(redis.call('HGET', RECORDS, id) or '', '"created":(%d+)') or now)
end

-- Let the instance of this label take a reservation over, unless that is taken, or the instance has an older one. Who
-- did not know of the older one has given it to a younger one.
local function mark(id, host, label)
  if redis.call('HEXISTS', RECORDS, id) == 0 or redis.call('HEXISTS', SEEN, id) == 1 then
    return
  end
  for _, other in ipairs(ids_on(host)) do
    if redis.call('HGET', SEEN, other) == label then
      if created(other) <= created(id) then
        return
      end
      redis.call('HDEL', SEEN, other)
    end
  end
  redis.call('HSET', SEEN, id, label)
  touch(host)
end

-- Instances of a host take reservations over. Whoever knows an older state of the host would match them wrongly, and
-- hears of the newer one first, unless it insists (-1).
local function see()
  local host, version = take(), take_number()
  if version >= 0 and tonumber(redis.call('ZSCORE', CHANGED, host) or 0) ~= version then
    return 'moved', ''
  end
  for _ = 1, take_number() do
    local id, label = take(), take()
    if version < 0 then
      mark(id, host, label)
    elseif redis.call('HEXISTS', RECORDS, id) == 1 and redis.call('HSETNX', SEEN, id, label) == 1 then
      touch(host) -- an earlier instance of this name may have taken over another one
    end
  end
  return 'seen', ''
end

-- What is given back stays known as such for as long as it could come back: from a command that was sent and not
-- answered, or from a replica that was cut off.
local function release()
  local outcome = 'none'
  for _ = 1, take_number() do
    local id, life = take(), take_number()
    redis.call('ZADD', RELEASED, whole(now + life), id)
    local host = drop(id)
    if host then
      touch(host)
      outcome = 'released'
    end
  end
  return outcome, ''
end

-- A replica comes (back), and brings what it knows: what this Redis has not got, it has lost, or never heard of.
local function join()
  release()
  for _ = 1, take_number() do
    local id, left, age, request, label = take(), take_number(), take_number(), take(), take()
    local host, cpu, memory, promised, rest = take(), take(), take(), take(), take()
    if redis.call('HEXISTS', RECORDS, id) == 0 and not redis.call('ZSCORE', RELEASED, id) then
      insert(id, host, request, now + left, record(now + left, cpu, memory, promised, now - age, host, rest))
    end
    if label ~= '' then
      mark(id, host, label)
    end
  end
  return 'joined', redis.call('HGET', STATE, 'founded')
end

local function changes()
  local found = {}
  local touched = redis.call('ZRANGEBYSCORE', CHANGED, '(' .. whole(known), '+inf', 'WITHSCORES')
  for number = 1, #touched, 2 do
    local host, entries = touched[number], {}
    for _, id in ipairs(ids_on(host)) do
      local text = redis.call('HGET', RECORDS, id)
      if text then
        entries[#entries + 1] = id
        entries[#entries + 1] = text
        entries[#entries + 1] = redis.call('HGET', SEEN, id) or ''
      end
    end
    found[#found + 1] = {host, touched[number + 1], entries}
  end
  return found
end

local current = redis.call('HGET', STATE, 'epoch')
if operation == 'join' and not current then
  current = take()
  redis.call('HSET', STATE, 'epoch', current, 'version', 0, 'founded', whole(now))
elseif operation == 'join' then
  take()
elseif current ~= epoch then
  return {current or '', 0, now, 'epoch', '', {}}
end

-- Also what only asks writes: a Redis that cannot, being full or a replica, is of no use, and is to say so at once.
redis.call('HSET', STATE, 'beat', whole(now))
sweep()
local operations = {reserve = reserve, see = see, release = release, join = join}
local outcome, detail = 'synced', ''
if operations[operation] then
  outcome, detail = operations[operation]()
end
keep()
return {current, tonumber(redis.call('HGET', STATE, 'version')), now, outcome, detail, changes()}
