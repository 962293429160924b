-- Shared by all scripts. Integers leave Lua as plain digits (exact below 2^53), never in exponent form.
local function digits(number)
  return number == 0 and '0' or string.format('%.0f', number) -- a double's -0 would become '-0', which is no integer
end

local function now_ms()
  local time = redis.call('TIME')
  return tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
end

-- What a call's record says of its last mint: lineage, jti and time (ms).
local function minting(text)
  return string.match(text or '', '^(%x+) (%S+) (%d+)$')
end

-- Is a token minted at `minted` (ms) revoked by any of these keys? A number revokes what was minted up to then, anything else
-- ('*') everything.
local function revoked(keys, minted)
  for _, value in ipairs(redis.call('MGET', unpack(keys))) do
    if value and minted <= (tonumber(value) or math.huge) then
      return true
    end
  end
  return false
end
