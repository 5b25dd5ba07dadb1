"""MosaicML's writer. Its package imports torchvision for readers of images, which no writer needs."""

import sys
import types
from importlib.machinery import ModuleSpec

try:
    import torchvision  # noqa: F401
except (ImportError, RuntimeError):  # it does not fit the torch that is there
    for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
        del sys.modules[name]
    for name in ("torchvision", "torchvision.datasets", "torchvision.transforms", "torchvision.transforms.functional"):
        sys.modules[name] = types.ModuleType(name)
        sys.modules[name].__spec__ = ModuleSpec(name, None)
    sys.modules["torchvision.datasets"].VisionDataset = object
    sys.modules["torchvision.transforms.functional"].to_tensor = None

from streaming import MDSWriter

__all__ = ["MDSWriter"]
