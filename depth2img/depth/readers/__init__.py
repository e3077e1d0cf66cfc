"""One module per file format that a depth map comes in; `reading.py` chooses by content."""
