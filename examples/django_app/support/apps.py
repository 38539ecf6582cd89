"""The app, which makes the settings of polos hold in every process of the project."""

import os

from django.apps import AppConfig
from django.conf import settings


class SupportConfig(AppConfig):
    name = "support"

    def ready(self) -> None:
        for name, value in settings.POLOS.items():
            os.environ.setdefault(f"POLOS_{name}", str(value))
