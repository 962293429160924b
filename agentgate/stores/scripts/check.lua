-- KEYS probe | what a start-up check reads inside a script: lineage and the server's clock
return {KEYS[1], lineage(), digits(now_ms())}
