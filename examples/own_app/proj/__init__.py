"""A project with a Celery app of its own, which is loaded with any part of it."""

from proj.celery import app

__all__ = ["app"]
