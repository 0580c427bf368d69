"""Rules files as text: YAML nodes with places, includes, the schema and its fields."""
