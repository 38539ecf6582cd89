"""`manage.py polosworker`: a Celery worker that serves the agents of POLOS["IMPORTS"], with Django set up."""

from django.core.management.base import BaseCommand

import polos


class Command(BaseCommand):
    help = "Serve the project's agents. Options are those of `celery worker`, such as -c 10 --loglevel info."

    def run_from_argv(self, argv: list[str]) -> None:
        """Leave the options to Celery, which knows them."""
        polos.celery.worker_main(["worker", *argv[2:]])
