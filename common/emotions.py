"""The emotions by their canonical names, and the other names that people use for them."""

EMOTIONS_8 = ("neutral", "happiness", "surprise", "sadness", "anger", "disgust", "fear", "contempt")
"""FER+ order: index i is FER+'s column i."""

EMOTIONS_7 = ("anger", "disgust", "fear", "happiness", "sadness", "surprise", "neutral")
"""FER2013 order: index i is Kaggle's label i."""

SYNONYMS = {
    "neutral": ("calm", "none", "normal"),
    "happiness": ("happy", "joy", "joyful", "smile", "smiling"),
    "surprise": ("surprised", "astonished"),
    "sadness": ("sad", "unhappy"),
    "anger": ("angry", "mad"),
    "disgust": ("disgusted",),
    "fear": ("afraid", "fearful", "scared"),
    "contempt": ("contemptuous",),
}

_CANONICAL = {name: name for name in EMOTIONS_8} | {s: name for name, words in SYNONYMS.items() for s in words}


def canonical_emotion(name: str) -> str | None:
    """The canonical name of `name` (any case, surrounding spaces, a numeric prefix as in `3_happy`), or None."""
    word = name.strip().lower().lstrip("0123456789").strip(" _-")
    return _CANONICAL.get(word)
