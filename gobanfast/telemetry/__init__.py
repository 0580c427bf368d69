"""Telemetry of an engine: the decision log (`log`) and metrics (`metrics`)."""
