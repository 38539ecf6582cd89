"""Celery settings of this folder: plain values. `celery -A polos …` and clients started here read them."""

# What the workers serve.
imports = ["agents"]

# What executes at once in one worker process.
worker_concurrency = 50

# Set POLOS_BROKER_URL and POLOS_DATABASE_URL to leave the embedded Valkey and SQLite. A broker may as well be
# named here:
# broker_url = "redis://localhost:6379/0"
