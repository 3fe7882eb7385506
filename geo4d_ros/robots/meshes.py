"""Meshes of a robot: found in an installed Python package, decimated once, cached for this user.

Nothing third-party lives in this tree; the packages are only read as files, never imported.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import tempfile
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from geo4d_ros.errors import SimulationError


@dataclass(frozen=True)
class MeshSource:
    """Where a robot's meshes come from.

    package: whose folder `folder` holds the files; install: the command that brings it; files: (name, file, faces
    kept) per mesh, cached as `<name>.stl`.
    """

    robot: str
    package: str
    folder: str
    install: str
    files: tuple[tuple[str, str, int], ...]


def cache_dir() -> Path:
    """This user's cache folder of the package: $XDG_CACHE_HOME/geo4d_ros or ~/.cache/geo4d_ros."""
    root = os.environ.get('XDG_CACHE_HOME')
    return (Path(root) if root else Path.home() / '.cache') / 'geo4d_ros'


def _source_dir(source: MeshSource) -> Path:
    spec = importlib.util.find_spec(source.package)
    hint = f'install it with: {source.install}'
    if spec is None or not spec.submodule_search_locations:
        raise SimulationError(f'the meshes of {source.robot} are missing (package {source.package}); {hint}')
    folder = Path(spec.submodule_search_locations[0]) / source.folder
    if not folder.is_dir():
        raise SimulationError(f'package {source.package} has no {source.folder}; {hint}')
    return folder


def _key(source: MeshSource, folder: Path) -> str:
    digest = hashlib.sha256(repr(sorted(source.files)).encode())
    for _, file, _ in sorted(source.files):
        path = folder / file
        if not path.is_file():
            raise SimulationError(f'package {source.package} has no {source.folder}/{file}; install it with: '
                                  f'{source.install}')
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


@lru_cache(maxsize=8)
def mesh_dir(source: MeshSource) -> Path:
    """Folder with the decimated `<name>.stl` files, in the units of the originals, made on first use.

    Safe under concurrent processes: each builds in its own folder and renames it into place.
    Raises SimulationError when the package is absent or the cache cannot be written.
    """
    folder = _source_dir(source)
    target = cache_dir() / f'{source.robot}-{_key(source, folder)}'
    if target.is_dir():
        return target
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=f'{source.robot}-', dir=target.parent))
        _decimate(source, folder, work)
        work.chmod(0o755)
        _rename(work, target)
    except OSError as error:
        raise SimulationError(f'cannot write the mesh cache {target}: {error.strerror}; '
                              'set XDG_CACHE_HOME to a writable folder') from error
    return target


def _decimate(source: MeshSource, folder: Path, out: Path) -> None:
    import fast_simplification
    import trimesh

    for name, file, faces in source.files:
        mesh = trimesh.load_mesh(folder / file, process=True)
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
