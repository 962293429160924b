-- KEYS index
return {KEYS[1], redis.call('ZRANGEBYSCORE', KEYS[1], '(' .. digits(now_ms()), '+inf', 'LIMIT', 0, 1000)}
