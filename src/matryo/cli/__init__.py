"""The command line: one file per command, imported when `matryo` starts, and heavy imports only inside the commands."""
