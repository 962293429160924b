"""Suites that the author of a store or a deriver runs against their own (`stores`, `derivers`), and attacks for operators (`probe`)."""
