"""What a fault of the store, a disk or a clock makes of a call, measured on real servers: ``python -m tests.faults``."""
