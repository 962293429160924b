-- ARGV word | for the start-up check: lineage and the server's clock, as a script sees them. It has no key: no program's user may write all
return {ARGV[1], lineage(), digits(now_ms())}
