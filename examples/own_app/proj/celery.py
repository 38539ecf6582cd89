"""The project's Celery app. Its workers execute its tasks and serve its agents."""

from celery import Celery
from kombu import Queue

import polos

app = Celery("proj", include=["proj.tasks", "proj.agents"])
app.conf.update(
    # broker_url="redis://localhost:6379/0",  # without one, polos starts a Valkey of its own
    result_backend="db+sqlite:///results.db",
    task_acks_late=True,
    task_default_queue="shop",
    task_queues=[Queue("shop"), Queue("mail")],
    task_routes={"proj.tasks.send_mail": {"queue": "mail"}},
    worker_pool="polos.worker.pool:AsyncioPool",  # or leave it out: prefork works as well
    worker_send_task_events=True,  # for Flower
)
polos.install(app)  # last, when the app is configured
