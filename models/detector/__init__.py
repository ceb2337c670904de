"""The small face detector that the project trained itself: scenes to learn from, network, training, and export."""
