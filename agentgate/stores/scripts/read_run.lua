-- KEYS run calls: one snapshot of both
return {KEYS[1], lineage(), redis.call('HGETALL', KEYS[1]), redis.call('HGETALL', KEYS[2])}
