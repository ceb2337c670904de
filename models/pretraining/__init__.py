"""Training of the base model on public faces: recipe, data, network with two heads, loop, checkpoint, scores."""
