"""The model and all that travels with it: architecture, preprocessing, face sets, export, signed manifest."""
