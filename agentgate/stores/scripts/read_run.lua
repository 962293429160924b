-- KEYS run | ARGV revision: one snapshot of the run and its calls
local gen, alone = lineage()
return {KEYS[1], snapshot(KEYS[1], gen, alone, ARGV[1])}
