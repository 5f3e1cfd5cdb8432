"""What operators type: the `drp` command, a module a group of subcommands; thin, the work is done elsewhere."""
