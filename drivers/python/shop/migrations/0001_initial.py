from django.db import migrations, models


def fill(apps, _):
    product = apps.get_model("shop", "Product")
    product.objects.bulk_create([product(name=f"product {n}") for n in range(1000)])


class Migration(migrations.Migration):
    operations = [
        migrations.CreateModel(
            name="Item",
            fields=[
                ("id", models.BigAutoField(primary_key=True)),
                ("session", models.IntegerField()),
                ("n", models.IntegerField()),
                ("value", models.TextField()),
            ],
            options={"managed": False, "db_table": "items"},
        ),
        migrations.CreateModel(
            name="Product",
            fields=[("id", models.BigAutoField(primary_key=True)), ("name", models.CharField(max_length=100))],
        ),
        migrations.RunPython(fill, migrations.RunPython.noop),
    ]
