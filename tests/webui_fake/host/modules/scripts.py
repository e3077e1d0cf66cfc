"""Scripts and the runner that calls their methods; what they raise is reported and swallowed."""

import re

from modules import errors

AlwaysVisible = object()
scripts_data = []
scripts_txt2img = None
scripts_img2img = None


class Script:
    name = None
    filename = None
    args_from = None
    args_to = None
    alwayson = False
    is_txt2img = False
    is_img2img = False
    infotext_fields = None
    controls = None
    api_info = None

    def title(self):
        raise NotImplementedError

    def ui(self, is_img2img):
        pass

    def show(self, is_img2img):
        return True

    def before_process(self, p, *args):
        pass

    def process(self, p, *args):
        pass

    def postprocess_image(self, p, pp, *args):
        pass

    def postprocess(self, p, processed, *args):
        pass

    def after_component(self, component, **kwargs):
        pass

    def elem_id(self, item_id):
        tab = f"{'img2img' if self.is_img2img else 'txt2img'}_" if self.show(True) == self.show(False) else ""
        title = re.sub("[^a-z_0-9]", "", self.title().lower().replace(" ", "_"))
        return f"script_{tab}{title}_{item_id}"


class PostprocessImageArgs:
    def __init__(self, image):
        self.image = image


class ScriptRunner:
    def __init__(self):
        self.scripts = []
        self.alwayson_scripts = []

    def fake_add(self, script, is_img2img, first=1):
        """The script gets all arguments from `first` on; argument 0 is the number of the drop-down's script."""
        script.is_txt2img, script.is_img2img = not is_img2img, is_img2img
        script.args_from, script.args_to = first, None
        self.scripts.append(script)
        self.alwayson_scripts.append(script)

    def fake_each(self, name, p, *more):
        for script in self.alwayson_scripts:
            try:
                getattr(script, name)(p, *more, *p.script_args[script.args_from : script.args_to])
            except Exception as error:
                errors.report(f"Error running {name}: {error!r}")

    def run(self, p, *args):
        if args[0] in (0, None):
            return None
        return self.selectable_scripts[args[0] - 1].run(p)

    def before_process(self, p):
        self.fake_each("before_process", p)

    def process(self, p):
        self.fake_each("process", p)

    def postprocess_image(self, p, pp):
        self.fake_each("postprocess_image", p, pp)

    def postprocess(self, p, processed):
        self.fake_each("postprocess", p, processed)
