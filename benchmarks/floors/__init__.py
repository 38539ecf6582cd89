"""The thinnest code that keeps the promises of polos: raw drivers, plain Celery, plain HTTP."""
