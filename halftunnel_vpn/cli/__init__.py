"""The command line. Nothing heavy is imported here before a command needs it."""
