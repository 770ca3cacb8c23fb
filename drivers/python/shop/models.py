from django.db import models


class Item(models.Model):
    """The table that every driver's database has."""

    session = models.IntegerField()
    n = models.IntegerField()
    value = models.TextField()

    class Meta:
        managed = False
        db_table = "items"


class Product(models.Model):
    """Made and changed by the migrations."""

    name = models.CharField(max_length=100)
    price = models.DecimalField(max_digits=8, decimal_places=2, default=0)

    class Meta:
        indexes = [models.Index(fields=["name"], name="product_name")]
