"""Franka meshes: found in the `gymnasium-robotics` wheel, decimated once, cached for this user.

Nothing third-party lives in this tree. The meshes are Franka Emika's (Apache-2.0, via
github.com/vikashplus/franka); the wheel is only read as files, never imported.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import tempfile
from functools import lru_cache
from pathlib import Path

from geo4d_ros.errors import SimulationError

# Faces kept per mesh: what the cameras see best (hand, fingers) keeps most. About 10 k in total.
FACES = {'link0': 900, 'link1': 900, 'link2': 900, 'link3': 1000, 'link4': 1000, 'link5': 1200,
         'link6': 1300, 'link7': 1000, 'hand': 1400, 'finger': 400}
_FOLDER = 'envs/assets/kitchen_franka/franka_assets/meshes/visual'
_INSTALL = 'install it with: pip install --no-deps gymnasium-robotics==1.4.2'


def cache_dir() -> Path:
    """This user's cache folder of the package: $XDG_CACHE_HOME/geo4d_ros or ~/.cache/geo4d_ros."""
    root = os.environ.get('XDG_CACHE_HOME')
    return (Path(root) if root else Path.home() / '.cache') / 'geo4d_ros'


def _source_dir() -> Path:
    spec = importlib.util.find_spec('gymnasium_robotics')
    if spec is None or not spec.submodule_search_locations:
        raise SimulationError(f'the Franka meshes are missing (package gymnasium-robotics); {_INSTALL}')
    folder = Path(spec.submodule_search_locations[0]) / _FOLDER
    if not folder.is_dir():
        raise SimulationError(f'gymnasium-robotics has no {_FOLDER}; {_INSTALL}')
    return folder


def _key(source: Path) -> str:
    digest = hashlib.sha256(repr(sorted(FACES.items())).encode())
    for name in sorted(FACES):
        digest.update((source / f'{name}.stl').read_bytes())
    return digest.hexdigest()[:16]


@lru_cache(maxsize=1)
def mesh_dir() -> Path:
    """Folder with the decimated `<name>.stl` files (metres), made on first use.

    Safe under concurrent processes: each builds in its own folder and renames it into place.
    Raises SimulationError when the wheel is absent or the cache cannot be written.
    """
    source = _source_dir()
    target = cache_dir() / f'panda-{_key(source)}'
    if target.is_dir():
        return target
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix='panda-', dir=target.parent))
        _decimate(source, work)
        work.chmod(0o755)
        _rename(work, target)
    except OSError as error:
        raise SimulationError(f'cannot write the mesh cache {target}: {error.strerror}; '
                              'set XDG_CACHE_HOME to a writable folder') from error
    return target


def _decimate(source: Path, out: Path) -> None:
    import fast_simplification
    import trimesh

    for name, faces in FACES.items():
        mesh = trimesh.load(source / f'{name}.stl', process=True)
        points, triangles = mesh.vertices, mesh.faces
        if len(triangles) > faces:
            points, triangles = fast_simplification.simplify(points.astype('float32'), triangles, target_count=faces)
        trimesh.Trimesh(points, triangles).export(out / f'{name}.stl')


def _rename(work: Path, target: Path) -> None:
    try:
        work.rename(target)
    except OSError:
        if not target.is_dir():  # otherwise another process was first, with the same content
            raise
        for file in work.iterdir():
            file.unlink()
        work.rmdir()
