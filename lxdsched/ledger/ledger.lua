-- The shared ledger's one script. Each call is one step for all replicas: nothing happens between its check and its
-- claim, and nothing is left locked when a replica dies. Times are milliseconds of this Redis' own clock.
--
-- KEYS  1 state      hash    epoch, run, founded, version, beat
--       2 records    hash    reservation id -> JSON, see record()
--       3 seen       hash    reservation id -> label of the instance that has taken it over
--       4 hosts      hash    host -> ids of the living reservations there, oldest first, a space between
--       5 changed    zset    host -> version of the last change there
--       6 ends       zset    reservation id -> when its time is up
--       7 requests   hash    key of a request -> reservation id
--       8 released   zset    reservation id -> when its time would have been up
-- ARGV  1 operation, 2 epoch, 3 version: what the caller knows; then what the operation wants
--
-- Answers {epoch, version, time, outcome, detail, {{host, version, {id, record, label, ...}}, ...}}: the detail is the id
-- of the reservation that was made or known, or when this run was first joined; the hosts are those that have changed since the
-- version that the caller knew. Where they are too many for one answer, the outcome is `more` in place of `synced` or
-- `joined`, and the version is the one that the caller knows by then: it asks for the rest by that.

local STATE, RECORDS, SEEN, HOSTS = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local CHANGED, ENDS, REQUESTS, RELEASED = KEYS[5], KEYS[6], KEYS[7], KEYS[8]
local HEAD = '^{"expires":(%d+),"cpu":(%d+),"memory":(%d+),"promised":(%a+)'
local MARGIN = 60000         -- for which keys outlive what they hold
local REMEMBERED = 3600000   -- for which an idle fleet's epoch is kept
local SWEPT = 20             -- how many ended reservations one call clears away
local AT_ONCE = 1000         -- how many arguments one command is given
local MOST_TOLD = 2000       -- after how many reservations and hosts an answer tells of no other host
local MOST_SAID = 4194304    -- and after how many bytes of records

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

-- What this call has read and changed of the hosts is written once, at its end.
local lists, changed_lists, touched = {}, {}, {}
-- Hosts that this call is about: the caller hears of them, however much else there is to tell.
local meant = {}

local function touch(host)
  touched[host], meant[host] = true, true
end

local function ids_on(host)
  if not lists[host] then
    lists[host] = {}
    for id in string.gmatch(redis.call('HGET', HOSTS, host) or '', '%S+') do
      table.insert(lists[host], id)
    end
  end
  return lists[host]
end

local function write_hosts()
  for host in pairs(changed_lists) do
    if #lists[host] > 0 then
      redis.call('HSET', HOSTS, host, table.concat(lists[host], ' '))
    else
      redis.call('HDEL', HOSTS, host)
    end
  end
  for host in pairs(touched) do
    redis.call('ZADD', CHANGED, redis.call('HINCRBY', STATE, 'version', 1), host)
  end
end

-- What a hash has for each of these fields, in their order; false for nothing.
local function values(key, fields)
  local found = {}
  for first = 1, #fields, AT_ONCE do
    local last = math.min(first + AT_ONCE - 1, #fields)
    for _, value in ipairs(redis.call('HMGET', key, unpack(fields, first, last))) do
      found[#found + 1] = value
    end
  end
  return found
end

-- A record, nil where somebody else has left what is none.
local function decoded(text)
  local readable, said = pcall(cjson.decode, text or '')
  if readable and type(said) == 'table' and type(said.host) == 'string' and type(said.demand) == 'table' then
    return said
  end
end

-- Forget a reservation; returns its host, or nil when there is none. One that cannot be read is none of ours.
local function drop(id)
  redis.call('ZREM', ENDS, id)
  redis.call('HDEL', SEEN, id)
  local text = redis.call('HGET', RECORDS, id)
  redis.call('HDEL', RECORDS, id)
  local said = decoded(text)
  if not said then
    return nil
  end
  local request = said.demand.request_id
  if type(request) == 'string' and redis.call('HGET', REQUESTS, request) == id then
    redis.call('HDEL', REQUESTS, request)
  end
  local ids = ids_on(said.host)
  for number, each in ipairs(ids) do
    if each == id then
      table.remove(ids, number)
      changed_lists[said.host] = true
      break
    end
  end
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
  local longest = MARGIN
  for _, key in ipairs({ENDS, RELEASED}) do
    local last = redis.call('ZRANGE', key, -1, -1, 'WITHSCORES')
    longest = math.max(longest, (tonumber(last[2]) or now) - now + MARGIN)
  end
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
  table.insert(ids_on(host), id)
  changed_lists[host] = true
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
  local ids = ids_on(host)
  for number, text in ipairs(values(RECORDS, ids)) do
    local id = ids[number]
    local expires, its_cpu, its_memory, promised = string.match(text or '', HEAD)
    local seen_here = shown[id] and redis.call('HGET', SEEN, id) == shown[id]
    if expires and tonumber(expires) > now and not seen_here then
      cpu, memory = cpu + tonumber(its_cpu), memory + tonumber(its_memory)
      if promised == 'true' then
        local said = decoded(text)
        local pool = said and said.demand.pool
        promises[#promises + 1] = type(pool) == 'table' and pool or {} -- of any kind, where it does not say which
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
    local said = text and tonumber(string.match(text, HEAD) or '0') > now and decoded(text)
    if said then
      touch(said.host) -- so that the answer shows it
      return 'known', earlier
    end
    redis.call('HDEL', REQUESTS, request)
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
      meant[host] = true
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

local takers = {}

-- Which reservation on a host the instance of a label has taken over.
local function taken_by(host, label)
  if not takers[host] then
    takers[host] = {}
    local ids = ids_on(host)
    for number, each in ipairs(values(SEEN, ids)) do
      if each then
        takers[host][each] = ids[number]
      end
    end
  end
  return takers[host][label]
end

-- Let the instance of this label take a reservation over, unless that is taken, or the instance has an older one. Who
-- did not know of the older one has given it to a younger one.
local function mark(id, host, label)
  if redis.call('HEXISTS', RECORDS, id) == 0 or redis.call('HEXISTS', SEEN, id) == 1 then
    return
  end
  local other = taken_by(host, label)
  if other then
    if created(other) <= created(id) then
      return
    end
    redis.call('HDEL', SEEN, other)
  end
  redis.call('HSET', SEEN, id, label)
  takers[host][label] = id
  touch(host)
end

-- Instances of a host take reservations over. Whoever knows an older state of the host would match them wrongly, and
-- hears of the newer one first, unless it insists (-1).
local function see()
  local host, version = take(), take_number()
  if version >= 0 and tonumber(redis.call('ZSCORE', CHANGED, host) or 0) ~= version then
    meant[host] = true
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
-- answered, or from a replica that was cut off. An id that only may be one (`certain` is 0) is not worth it.
local function release()
  local outcome = 'none'
  for _ = 1, take_number() do
    local id, life, certain = take(), take_number(), take() == '1'
    local host = drop(id)
    if host then
      touch(host)
      outcome = 'released'
    end
    if host or certain then
      redis.call('ZADD', RELEASED, whole(now + life), id)
    end
  end
  return outcome, ''
end

-- A replica comes (back), and brings what it knows: what this Redis has not got, it has lost, or never heard of. In
-- another run of the server than before, all replicas have yet to come: from then on counts how long that was ago.
local function join()
  local run = take()
  if redis.call('HGET', STATE, 'run') ~= run then
    redis.call('HSET', STATE, 'run', run, 'founded', whole(now))
  end
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

-- What has changed, the oldest first, and up to which version all of it is told: nil where nothing was left out.
local function changes()
  local found, told, bytes, heard, left_out = {}, 0, 0, known, false
  local news = redis.call('ZRANGEBYSCORE', CHANGED, '(' .. whole(known), '+inf', 'WITHSCORES')
  for number = 1, #news, 2 do
    local host, entries = news[number], {}
    left_out = left_out or told >= MOST_TOLD or bytes >= MOST_SAID
    if not left_out or meant[host] then
      local ids = ids_on(host)
      local labels = values(SEEN, ids)
      for place, text in ipairs(values(RECORDS, ids)) do
        if text then
          entries[#entries + 1] = ids[place]
          entries[#entries + 1] = text
          entries[#entries + 1] = labels[place] or ''
          bytes = bytes + #text
        end
      end
      told = told + 1 + #entries / 3
      found[#found + 1] = {host, news[number + 1], entries}
    end
    if not left_out then
      heard = news[number + 1]
    end
  end
  return found, left_out and heard or nil
end

local current = redis.call('HGET', STATE, 'epoch')
if operation == 'join' then
  local proposed = take()
  if not current then
    current = proposed
    redis.call('HSET', STATE, 'epoch', current, 'version', 0)
  end
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
write_hosts()
keep()
local news, heard = changes()
if heard and (outcome == 'synced' or outcome == 'joined') then
  outcome = 'more'
end
return {current, tonumber(heard or redis.call('HGET', STATE, 'version')), now, outcome, detail, news}
