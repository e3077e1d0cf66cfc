"""One step: what the UNet gets for both halves is kept."""

fake_steps = []


def sampling_function_inner(
    model, x, timestep, uncond, cond, cond_scale, model_options=None, seed=None, return_full=False
):
    fake_steps.append((cond, uncond, cond_scale))
    return x
