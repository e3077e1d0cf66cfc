"""Text encoders: what they are made with is kept."""


class SDClipModel:
    def __init__(self, **fake_options):
        self.fake_options = fake_options


class SD1ClipModel:
    def __init__(self, device="cpu", dtype=None, model_options=None, clip_name="l", clip_model=SDClipModel):
        setattr(self, f"clip_{clip_name}", clip_model(device=device, dtype=dtype, model_options=model_options))
