"""The operator's side: rounds over devices, aggregation, the registry of published models."""
