"""Settings and their descriptions."""


class OptionInfo:
    def __init__(
        self,
        default=None,
        label="",
        component=None,
        component_args=None,
        onchange=None,
        section=None,
        refresh=None,
        comment_before="",
        comment_after="",
        infotext=None,
        restrict_api=False,
        category_id=None,
    ):
        self.default, self.label, self.component, self.component_args = default, label, component, component_args
        self.onchange, self.section, self.refresh, self.restrict_api = onchange, section, refresh, restrict_api


class Options:
    def __init__(self, data_labels, restricted_opts):
        self.__dict__["data_labels"] = data_labels
        self.__dict__["data"] = {key: info.default for key, info in data_labels.items()}

    def __getattr__(self, item):
        if item in self.__dict__.get("data", {}):
            return self.data[item]
        raise AttributeError(item)

    def __setattr__(self, key, value):
        self.data[key] = value

    def set(self, key, value, is_api=False, run_callbacks=True):
        self.data[key] = value
        return True

    def add_option(self, key, info):
        self.data_labels[key] = info
        self.data.setdefault(key, info.default)
