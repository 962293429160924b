"""``python -m agentgate``: the command line."""

from agentgate.cli.main import app

app(prog_name="agentgate")
