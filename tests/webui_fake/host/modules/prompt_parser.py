"""Prompts: `batch` holds, for each picture, its AND-subprompts."""


class MulticondLearnedConditioning:
    def __init__(self, shape, batch):
        self.shape, self.batch = shape, batch
