"""Face data: the formats people have, read into a `FaceSet`."""
