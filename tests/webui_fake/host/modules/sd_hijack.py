"""The host's changes to a loaded checkpoint."""


class StableDiffusionModelHijack:
    circular_enabled = False

    def hijack(self, m):
        assert not m.fake_hijacked, "hijacked twice"
        m.fake_hijacked = True

    def undo_hijack(self, m):
        m.fake_hijacked = False


model_hijack = StableDiffusionModelHijack()
