"""What runs inside a worker process: the Celery app, its pool, the tasks and the recovery thread."""
