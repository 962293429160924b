-- Shared by all scripts. Integers leave Lua as plain digits (exact below 2^53), never with an exponent.
local function digits(number)
  return number == 0 and '0' or string.format('%.0f', number) -- a double's -0 would become '-0', which is not an integer
end

local function now_ms()
  local time = redis.call('TIME')
  return tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
end

-- The last mint in a call's record: lineage, jti and time (ms).
local function minting(text)
  return string.match(text or '', '^(%x+) (%S+) (%d+)$')
end

-- True if any of these keys revokes a token minted at `minted` (ms). A number revokes what was minted up to that time, any other value
-- ('*') everything.
local function revoked(keys, minted)
  for _, value in ipairs(redis.call('MGET', unpack(keys))) do
    if value and minted <= (tonumber(value) or math.huge) then
      return true
    end
  end
  return false
end
