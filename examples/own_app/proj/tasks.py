"""Ordinary Celery tasks. Nothing of polos is in them."""

from proj.celery import app


@app.task
def total(prices: list[float]) -> float:
    return sum(prices)


@app.task(max_retries=3, rate_limit="10/s")
def send_mail(address: str, text: str) -> str:
    print(f"mail to {address}: {text}")
    return address
