"""The names that a pickle may use: what becomes of objects that are not tensors.

Nothing that a pickle names is ever imported or called here; a name that is not needed gets an inert stand-in. The list
of hostile names is therefore not what keeps the reader safe: it tells a file that would run code elsewhere from a
training program's own records, so that the first kind is refused and reported.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Final

HARMLESS: Final[Mapping[str, frozenset[str]]] = {
    module: frozenset(names.split())
    for module, names in {
        "__builtin__": "bool bytearray bytes complex dict float frozenset int list long object range set slice str "
        "tuple type unicode xrange",
        "_codecs": "encode",
        "argparse": "Namespace",
        "array": "array _array_reconstructor",
        "collections": "OrderedDict defaultdict deque Counter ChainMap UserDict UserList UserString",
        "copy_reg": "_reconstructor __newobj__ __newobj_ex__",
        "datetime": "date datetime time timedelta timezone",
        "decimal": "Decimal Context",
        "fractions": "Fraction",
        "functools": "partial",
        "operator": "getitem",  # as `typing.Optional[int]` is pickled
        "pathlib": "Path PosixPath WindowsPath PurePath PurePosixPath PureWindowsPath",
        "random": "Random",
        "re": "_compile RegexFlag",
        "time": "struct_time",
        "types": "SimpleNamespace MappingProxyType GenericAlias UnionType NoneType",
        "typing": "Any Callable Dict FrozenSet Generic Iterable Iterator List Literal Mapping NoReturn Optional "
        "Sequence Set Tuple Type TypeVar Union",
        "uuid": "UUID SafeUUID",
        "zoneinfo": "ZoneInfo ZoneInfo._unpickle",
    }.items()
}
"""Modules of the standard library -> their names that hold values and no more."""

RENAMED: Final = {"builtins": "__builtin__", "copyreg": "copy_reg"}
"""Names of modules since Python 3 -> before; `torch.save` writes the old ones."""

HOSTILE: Final = frozenset({
    # Python 2's modules, and the standard library under another name
    "commands", "popen2", "urllib2", "httplib", "cPickle", "thread", "six.moves",
    # installers, pickles of code, shells and clients
    "pip", "setuptools", "pkg_resources", "cloudpickle", "dill", "joblib", "jsonpickle", "yaml", "IPython", "ipykernel",
    "pexpect", "plumbum", "sh", "fabric", "invoke", "paramiko", "requests", "urllib3", "httpx", "aiohttp", "cffi",
    "win32api", "win32com", "win32process",
    # functions of numeric packages that read pickles, import, compile or run what they are given
    "numpy.f2py", "numpy.testing", "numpy.distutils", "numpy.load", "numpy.lib.npyio", "numpy.ctypeslib",
    "pandas.eval", "pandas.read_pickle", "pandas.io", "pandas.core.computation", "scipy.weave",
    "torch.load", "torch.hub", "torch.jit", "torch.package", "torch.serialization", "torch.storage._load_from_bytes",
    "torch.ops", "torch.classes", "torch.compile", "torch.fx", "torch._dynamo", "torch._inductor",
    "torch.utils.cpp_extension", "torch.utils.data.datapipes", "torch.distributed.rpc", "torch.multiprocessing",
    "transformers.dynamic_module_utils", "diffusers.utils.dynamic_modules_utils", "huggingface_hub",
    "ldm.util.instantiate_from_config", "ldm.util.get_obj_from_str", "sgm.util.instantiate_from_config",
    "sgm.util.get_obj_from_str", "hydra.utils", "omegaconf.OmegaConf.register_new_resolver",
})  # fmt: skip
"""Packages, modules and functions outside the standard library that run what they are given."""


def is_hostile(module: str, name: str) -> bool:
    """Tell whether something of this name, called by a pickle, could run code.

    All of the standard library counts as hostile except `HARMLESS`; of other packages, `HOSTILE` with everything below.

    Args:
        module: as the pickle names it.
        name: of the class or function in it; dots lead into it.
    """
    module = RENAMED.get(module, module)
    root = module.partition(".")[0]
    if root in HARMLESS:
        return name not in HARMLESS[root]
    parts = f"{module}.{name}".split(".")
    return root in sys.stdlib_module_names or any(".".join(parts[:end]) in HOSTILE for end in range(1, len(parts) + 1))
