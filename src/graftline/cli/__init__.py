"""The `graftline` command: one module a subcommand, and `app`, which has them all."""
