"""robosuite 1.5.2 beside MuJoCo 4 and NumPy 2: its wheel alone, without the packages that it would pull down.

It was written for MuJoCo 3: three of its calls changed. numba and termcolor are for speed and colour only.
"""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import mujoco


def _plain_module(name: str, **contents: Any) -> None:
    try:
        __import__(name)
    except ImportError:
        sys.modules[name] = module = ModuleType(name)
        vars(module).update(contents)


def import_robosuite() -> Any:
    """The package, mended where MuJoCo is newer than it."""
    _plain_module('numba', jit=lambda **_: lambda function: function)
    _plain_module('termcolor', colored=lambda text, *_, **__: text)
    import robosuite
    from robosuite.controllers.parts import controller
    from robosuite.utils import binding_utils
    from robosuite.utils.log_utils import ROBOSUITE_DEFAULT_LOGGER

    ROBOSUITE_DEFAULT_LOGGER.setLevel('ERROR')
    if hasattr(mujoco.MjData, 'qM'):
        return robosuite  # MuJoCo 3
    # `in` compares the other way round than ==, and NumPy's integers no longer equal MuJoCo's enumerations there.
    binding_utils.MjModel.get_joint_qpos_addr = _address((7, 4, 1, 1), 'jnt_qposadr')
    binding_utils.MjModel.get_joint_qvel_addr = _address((6, 3, 1, 1), 'jnt_dofadr')
    # mj_fullM takes the data, not its inertia matrix.
    binding_utils.MjData.qM = property(lambda self: self._data)
    controller.mujoco = SimpleNamespace(mj_fullM=lambda model, full, data: mujoco.mj_fullM(model, data, full))
    return robosuite


def _address(sizes: tuple[int, ...], first: str) -> Any:
    def address(self: Any, name: str) -> Any:
        joint = self.joint_name2id(name)
        start, size = int(getattr(self, first)[joint]), sizes[int(self.jnt_type[joint])]
        return start if size == 1 else (start, start + size)

    return address
