"""What serves a folder when nothing is configured: its Valkey server and the folder itself."""
