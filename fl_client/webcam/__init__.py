"""The camera loop: source -> detector -> crop -> classifier -> overlay -> window or file."""
