"""What a sweeper does, one duty a module. Every worker has a sweeper: duties share the work row by row."""
