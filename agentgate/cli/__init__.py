"""The command line: `agentgate.cli.main` lists the commands, each command is a file of its own."""
