"""The table of orders, with two of them."""

from django.db import migrations, models

ORDERS = {"A-17": "sent on Monday", "A-18": "waits for the lamp"}


def add_orders(apps, schema_editor):
    apps.get_model("support", "Order").objects.bulk_create(
        apps.get_model("support", "Order")(number=number, status=status) for number, status in ORDERS.items()
    )


class Migration(migrations.Migration):
    operations = (
        migrations.CreateModel(
            name="Order",
            fields=[
                ("id", models.BigAutoField(primary_key=True, serialize=False)),
                ("number", models.CharField(max_length=20, unique=True)),
                ("status", models.CharField(max_length=100)),
            ],
        ),
        migrations.RunPython(add_orders, migrations.RunPython.noop),
    )
