-- KEYS hold
local hold = read_hold(KEYS[1])
if not hold[1] then
  return {KEYS[1], 'missing', '', '', ''}
end
return {KEYS[1], hold[1], hold[2], hold[3], hold[4]}
