"""The `polos` command: workers, the database, a look at runs, the demo. Each module is one command."""
