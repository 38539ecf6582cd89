"""Celery settings for the workers, clients and Flower of this folder: plain values, any Celery setting.

Every line may be left out. What the environment says (POLOS_BROKER_URL) and the options of the command line
(`-c`, `-Q`) come first. Settings of polos itself are environment variables: docs/configuration.md.
"""

# The broker: Redis, Valkey or RabbitMQ. Without one, polos runs a Valkey of its own under .polos/.
# broker_url = "redis://localhost:6379/0"

# What executes at once in one worker process. Runs that only wait, for a model or for a child, do not count.
worker_concurrency = 100

# Flower and `celery events` show nothing without these.
worker_send_task_events = True

# Take messages only when there is a slot for them, so that a free worker is never beside a loaded one.
worker_prefetch_multiplier = 1

# A worker that starts before its broker waits for it.
broker_connection_retry_on_startup = True
