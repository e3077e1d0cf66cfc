"""Bytes and files: pictures, atomic writing, pairing of names, the Hugging Face hub."""
