-- KEYS run calls | ARGV revision: one snapshot of both
local gen, alone = lineage()
return {KEYS[1], snapshot(KEYS[1], KEYS[2], gen, alone, ARGV[1])}
