-- KEYS history
return {KEYS[1], redis.call('HGETALL', KEYS[1])}
