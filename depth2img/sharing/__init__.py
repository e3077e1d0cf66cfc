"""The hover view to pass on: a page that needs nothing else, a loop as a film, a stereo pair."""
