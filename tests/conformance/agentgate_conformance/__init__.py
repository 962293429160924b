"""Suites that the author of a store or a deriver runs against their own: `agentgate_conformance.stores` and `.derivers`."""
