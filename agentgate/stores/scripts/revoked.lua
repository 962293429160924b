-- KEYS revoked... | ARGV opened: 1 where one of these revokes what was opened then
return {KEYS[1], revoked(KEYS, tonumber(ARGV[1])) and 'yes' or 'no'}
