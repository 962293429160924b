-- On a shard of a cluster every key is declared, or a slot that is moved key by key would be read, or written, in half. A key that only the data
-- names is declared before anything is written: what is missing ends the script, which answers with that and is sent again with it behind its
-- own keys, whose number is its last argument. What the data name may have changed then; it answers again.
local declare, declaring
do
  local given, own = {}, tonumber(table.remove(ARGV))
  for _, key in ipairs(KEYS) do
    given[key] = true
  end
  for i = #KEYS, own + 1, -1 do
    KEYS[i] = nil
  end

  declare = function(keys)
    local missing = {}
    for _, key in ipairs(keys) do
      if not given[key] then
        given[key], missing[#missing + 1] = true, key
      end
    end
    if #missing > 0 then
      error({undeclared = missing})
    end
  end

  declaring = function(script)
    local done, answer = pcall(script)
    if not done and type(answer) == 'table' and answer.undeclared then
      return {'undeclared', answer.undeclared} -- not as an answer begins, which may hold any word
    elseif not done then
      error(answer, 0)
    end
    return answer
  end
end
