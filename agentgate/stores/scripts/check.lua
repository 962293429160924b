-- KEYS probe | for the start-up check: lineage and the server's clock, as a script sees them
return {KEYS[1], lineage(), digits(now_ms())}
