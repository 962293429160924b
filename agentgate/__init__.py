"""agentgate decides whether a credential for an AI agent's tool call should exist at all."""
