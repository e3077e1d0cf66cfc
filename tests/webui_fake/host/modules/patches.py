"""Book-keeping of replaced functions."""

originals = {}


def patch(key, obj, field, replacement):
    if (key, obj, field) in originals:
        raise RuntimeError(f"{field} is patched already")
    originals[key, obj, field] = getattr(obj, field)
    setattr(obj, field, replacement)
    return originals[key, obj, field]


def undo(key, obj, field):
    if (key, obj, field) not in originals:
        raise RuntimeError(f"{field} is not patched")
    setattr(obj, field, originals.pop((key, obj, field)))


def original(key, obj, field):
    return originals.get((key, obj, field))
