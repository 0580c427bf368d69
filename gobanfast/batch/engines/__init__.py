"""Adapters that carry the engine's kernel into query engines: DuckDB, Polars and Spark, over one Arrow core."""
