from django.contrib.postgres.operations import AddIndexConcurrently
from django.db import migrations, models


class Migration(migrations.Migration):
    # An index CONCURRENTLY is made in no transaction.
    atomic = False
    dependencies = [("shop", "0001_initial")]
    operations = [
        migrations.AddField("Product", "price", models.DecimalField(max_digits=8, decimal_places=2, default=0)),
        AddIndexConcurrently("Product", models.Index(fields=["name"], name="product_name")),
    ]
