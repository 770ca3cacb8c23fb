"""An application as people write them: psycopg, OpenTelemetry's instrumentation of it with sqlcommenter, spans sent by
OTLP. Nothing here knows of a pooler.

Usage: application.py DSN COLLECTOR. Prints the trace's id, when its spans are sent.
"""

import sys
import time

import psycopg
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.instrumentation.psycopg import PsycopgInstrumentor
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

dsn, collector = sys.argv[1:]
provider = TracerProvider(resource=Resource.create({"service.name": "application"}))
provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=collector + "/v1/traces")))
trace.set_tracer_provider(provider)
PsycopgInstrumentor().instrument(enable_commenter=True)
tracer = trace.get_tracer("application")

# The connection's own queries are not what is measured.
connection = psycopg.connect(dsn, autocommit=True)
connection.execute("SELECT 1")
with tracer.start_as_current_span("request") as request:
    # One statement, one transaction.
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_sleep(1), %s AS single", ("Hidden",))
    # A block: its BEGIN and COMMIT are the driver's own.
    with tracer.start_as_current_span("block"):
        with connection.transaction():
            with connection.cursor() as cursor:
                cursor.execute("SELECT pg_sleep(0.6) AS first")
                cursor.execute("SELECT pg_sleep(0.6) AS second")
    trace_id = request.get_span_context().trace_id
connection.close()
provider.force_flush()
print(f"{trace_id:032x}")
