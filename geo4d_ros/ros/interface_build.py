"""Builds the interface packages that a ROS-from-wheels installation lacks: our own, and others' from bare field lists.

A ROS machine has them by apt and colcon and nothing is built there. Elsewhere the field lists under
`interfaces/` go through rosidl's own generators (they come with the rclpy wheels), are compiled
with gcc and installed beside rclpy, so that types, wire format and RIHS01 hashes (REP-2011)
equal the originals'. Run it as `python -m geo4d_ros.ros.interface_build`.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import io
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

from geo4d_ros.errors import BackendUnavailableError, ConfigurationError, Geo4dError
from geo4d_ros.resources import share_directory

DEFINITIONS = Path(__file__).parent / 'interfaces'
OWN = ('geo4d_interfaces',)  # in interfaces/ of the checkout: colcon builds them on a ROS machine
STAMP = 'geo4d_generated.json'
BUILD_VERSION = 1  # counts changes of this file that change what is built
GENERATORS = ('c', 'typesupport_fastrtps_c', 'typesupport_introspection_c', 'typesupport_c', 'py')
FLAGS = ('-O1', '-g0', '-fPIC', '-w')
# Every action pulls these in, whatever its fields are.
ACTION_PACKAGES = ('action_msgs', 'unique_identifier_msgs', 'service_msgs', 'builtin_interfaces')
SERVICE_PACKAGES = ('service_msgs', 'builtin_interfaces')


@dataclass
class InterfacePackage:
    """One package of field lists: its files relative to the package folder and what they refer to."""

    name: str
    files: list[Path]
    depends: set[str] = field(default_factory=set)

    @property
    def root(self) -> Path:
        """Folder of the field lists."""
        return definition(self.name)


def definition(name: str) -> Path:
    """Folder of a package's field lists, whether it exists or not."""
    return share_directory() / 'interfaces' / name if name in OWN else DEFINITIONS / name


def read_package(name: str) -> InterfacePackage:
    """Files of one package and the packages its fields name."""
    root = definition(name)
    files = sorted(p.relative_to(root) for p in root.glob('*/*') if p.suffix in ('.msg', '.srv', '.action'))
    depends: set[str] = set()
    for file in files:
        depends |= set(re.findall(r'^(\w+)/', (root / file).read_text(), re.MULTILINE))
        depends |= set({'.action': ACTION_PACKAGES, '.srv': SERVICE_PACKAGES}.get(file.suffix, ()))
    return InterfacePackage(name, files, depends - {name})


def all_packages() -> list[InterfacePackage]:
    """Every package of `interfaces/`, those that others need first."""
    folders = (*sorted(DEFINITIONS.iterdir()), *map(definition, OWN))
    waiting = {d.name: read_package(d.name) for d in folders if d.is_dir()}
    ordered: list[InterfacePackage] = []
    while waiting:
        ready = [p for p in waiting.values() if not p.depends & waiting.keys()]
        ordered += ready
        for package in ready:
            del waiting[package.name]
    return ordered


def content_key(package: InterfacePackage) -> str:
    """Hash of all that the build depends on: field lists, generators, interpreter."""
    digest = hashlib.sha256(f'{BUILD_VERSION} {sys.version} {version("rosidl_generator_py")}'.encode())
    for name in sorted({package.name, *package.depends}):
        for path in sorted(definition(name).glob('*/*')):
            digest.update(str(path.relative_to(definition(name).parent)).encode() + path.read_bytes())
    return digest.hexdigest()


def stamp_path(name: str, prefix: Path) -> Path:
    """Where a package built here notes its key."""
    return prefix / 'share' / name / STAMP


def status(package: InterfacePackage, prefix: Path) -> str:
    """'ros' = provided by an installation, 'built' = built here and current, 'missing' otherwise."""
    stamp = stamp_path(package.name, prefix)
    spec = importlib.util.find_spec(package.name)
    site = Path(sysconfig.get_path('purelib')).resolve()
    ours = stamp.exists() and (spec is None or Path(spec.origin or site).resolve().is_relative_to(site))
    if spec is not None and not ours:
        return 'ros'
    if stamp.exists() and spec is not None and json.loads(stamp.read_text())['key'] == content_key(package):
        return 'built'
    return 'missing'


class Workspace:
    """The folders and compiler flags of one build: `share/`, `gen/<generator>/<package>/`, `lib/`."""

    def __init__(self, root: Path, prefix: Path) -> None:
        check_compiler()
        import numpy

        self.root, self.prefix = root, prefix
        headers = [d for d in sorted((prefix / 'include').iterdir()) if d.is_dir()]
        generated = [root / 'gen' / generator for generator in GENERATORS]
        python = [sysconfig.get_path('include'), numpy.get_include()]
        self.includes = [f'-I{folder}' for folder in (*generated, prefix / 'include', *headers, *python)]
        self.objects = root / 'obj'
        self.libraries = root / 'lib'
        for folder in (root / 'share', self.objects, self.libraries):
            folder.mkdir()

    def share(self, name: str) -> Path:
        """Folder that will become share/<name>."""
        return self.root / 'share' / name

    def generated(self, generator: str, name: str) -> Path:
        """Output folder of one generator for one package."""
        return self.root / 'gen' / generator / name

    def sources(self, library: str, name: str) -> list[Path]:
        """Generated sources of one of the package's shared libraries."""
        pattern = {'c': '*/detail/*.c', 'typesupport_fastrtps_c': '*/detail/*.cpp',
                   'typesupport_introspection_c': '*/detail/*.c', 'typesupport_c': '*/*.cpp',
                   'py': '*/_*_s.c'}[library]
        return sorted(self.generated(library, name).glob(pattern))


def check_compiler() -> None:
    """One line saying what to install when gcc, g++ or Python.h is missing."""
    for tool in ('gcc', 'g++'):
        if shutil.which(tool) is None:
            raise BackendUnavailableError(f'{tool} is missing, needed to build ROS interfaces; '
                                          'apt-get install gcc g++')
    if not (Path(sysconfig.get_path('include')) / 'Python.h').exists():
        raise BackendUnavailableError('Python.h is missing, needed to build ROS interfaces; '
                                      'apt-get install python3-dev')


def library_name(package: str, generator: str) -> str:
    """Name of the shared library that a generator's sources become."""
    return f'{package}__{generator_module(generator)}'


def generator_module(generator: str) -> str:
    """The rosidl package behind a name of GENERATORS."""
    return f'rosidl_{generator}' if generator.startswith('typesupport') else f'rosidl_generator_{generator}'


def describe(package: InterfacePackage, work: Workspace) -> None:
    """Field lists -> .idl and the .json type description that carries the RIHS01 hash."""
    from rosidl_adapter.action import convert_action_to_idl
    from rosidl_adapter.msg import convert_msg_to_idl
    from rosidl_adapter.srv import convert_srv_to_idl
    from rosidl_generator_type_description import generate_type_hash

    convert = {'.msg': convert_msg_to_idl, '.srv': convert_srv_to_idl, '.action': convert_action_to_idl}
    share = work.share(package.name)
    for file in package.files:
        (share / file.parent).mkdir(parents=True, exist_ok=True)
        shutil.copy(package.root / file, share / file)
        with contextlib.redirect_stdout(io.StringIO()):
            convert[file.suffix](share, package.name, file, share / file.parent)
    arguments = generator_arguments(package, share)
    arguments['include_paths'] = [f'{d.name}:{d}' for base in (work.prefix, work.root)
                                  for d in sorted((base / 'share').iterdir()) if d.is_dir()]
    run_generator(generate_type_hash, arguments, work.root)


def generator_arguments(package: InterfacePackage, share: Path) -> dict:
    """The argument object that every rosidl generator reads from a file."""
    idl = [file.with_suffix('.idl') for file in package.files]
    return {
        'package_name': package.name, 'output_dir': str(share), 'template_dir': '',
        'idl_tuples': [f'{share}:{file}' for file in idl], 'ros_interface_dependencies': [],
        'target_dependencies': [], 'include_paths': [],
        'type_description_tuples': [f'{file}:{share / file.with_suffix(".json")}' for file in idl],
        'ros_interface_files': [str(share / file) for file in package.files],
    }


def run_generator(call: Callable, arguments: dict, folder: Path) -> None:
    """Run a rosidl generator, which wants its arguments in a file."""
    path = folder / 'arguments.json'
    path.write_text(json.dumps(arguments))
    call(str(path))


def generate(package: InterfacePackage, work: Workspace) -> None:
    """C structs, the three C type supports and Python classes of one package."""
    from rosidl_generator_c import generate_c
    from rosidl_generator_py import generate_py
    from rosidl_typesupport_c import generate_c as generate_typesupport_c
    from rosidl_typesupport_fastrtps_c import generate_typesupport_fastrtps_c
    from rosidl_typesupport_introspection_c import generate_c as generate_introspection_c

    # Fast DDS needs the introspection support too: without it a type cannot be registered.
    supports = ['rosidl_typesupport_fastrtps_c', 'rosidl_typesupport_introspection_c']
    calls = {'c': generate_c, 'typesupport_fastrtps_c': generate_typesupport_fastrtps_c,
             'typesupport_introspection_c': generate_introspection_c,
             'typesupport_c': lambda path: generate_typesupport_c(path, supports),
             'py': lambda path: generate_py(path, ['rosidl_typesupport_c'])}
    arguments = generator_arguments(package, work.share(package.name))
    for generator in GENERATORS:
        out = work.generated(generator, package.name)
        for folder in {file.parent for file in package.files} | {Path('msg')}:
            (out / folder / 'detail').mkdir(parents=True, exist_ok=True)
        name = generator_module(generator)
        templates = work.prefix / 'share' / name / 'resource'
        run_generator(calls[generator], {**arguments, 'output_dir': str(out), 'template_dir': str(templates)},
                      work.root)
        header = templates / f'{name}__visibility_control.h.in'
        if header.exists():
            text = header.read_text().replace('@PROJECT_NAME@', package.name)
            (out / 'msg' / header.stem).write_text(text.replace('@PROJECT_NAME_UPPER@', package.name.upper()))


def translation_units(package: InterfacePackage, generator: str, work: Workspace) -> list[Path]:
    """What the compiler is called on: one unit per library, since reading headers is most of the time.

    Only the type descriptions stay apart: their file-local names clash.
    """
    apart, together = [], []
    for path in work.sources(generator, package.name):
        (apart if path.name.endswith('__description.c') else together).append(path)
    unit = work.objects / f'{library_name(package.name, generator)}{together[0].suffix}'
    unit.write_text(''.join(f'#include "{path}"\n' for path in together))
    return [unit, *apart]


def object_file(unit: Path) -> Path:
    """Where the object of a translation unit goes."""
    return unit.with_name(unit.name + '.o')


def compile_unit(unit: Path, package: str, work: Workspace) -> None:
    """Compile one translation unit."""
    compiler = ['g++', '-std=c++17'] if unit.suffix == '.cpp' else ['gcc', '-std=gnu11']
    defines = [f'-DROSIDL_{kind}_BUILDING_DLL_{package}'
               for kind in ('GENERATOR_C', 'TYPESUPPORT_FASTRTPS_C', 'TYPESUPPORT_INTROSPECTION_C')]
    run_tool([*compiler, *FLAGS, *defines, f'-DROS_PACKAGE_NAME="{package}"', *work.includes,
              '-c', str(unit), '-o', str(object_file(unit))])


def run_tool(command: list[str]) -> None:
    """Run the compiler; its first error line becomes ours."""
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode:
        errors = [line for line in result.stderr.splitlines() if 'error' in line or 'undefined' in line]
        raise ConfigurationError(f'{command[0]} failed on {command[-3]}: {(errors or [result.stderr])[0]}')


def link_package(package: InterfacePackage, units: dict[str, list[Path]], work: Workspace) -> None:
    """The package's five shared libraries, in the order in which they use each other."""
    prefix_lib = work.prefix / 'lib'
    libraries = ['-L', str(work.libraries), '-L', str(prefix_lib)]
    runtime = ['-lrosidl_runtime_c', '-lrosidl_typesupport_c', '-lrosidl_typesupport_fastrtps_c', '-lrcutils',
               '-lrosidl_typesupport_fastrtps_cpp', '-lrosidl_typesupport_introspection_c', '-lrmw',
               '-lfastcdr']
    flags = ['-Wl,-rpath,$ORIGIN', '-Wl,--as-needed', '-Wl,--allow-shlib-undefined']
    for generator in GENERATORS:
        name = library_name(package.name, generator)
        objects = [str(object_file(unit)) for unit in units[generator]]
        uses = [f'-l{library_name(package.name, g)}' for g in GENERATORS[:GENERATORS.index(generator)]]
        # Descriptions refer to types of types: offer every message library, --as-needed keeps those used.
        uses += [f'-l:{path.name}' for folder in (work.libraries, prefix_lib) for g in {'c', 'typesupport_c', generator}
                 for path in sorted(folder.glob(f'lib*__{generator_module(g)}.so')) if path.name != f'lib{name}.so']
        # Python's own symbols come from the interpreter.
        strict = '-Wl,--unresolved-symbols=ignore-all' if generator == 'py' else '-Wl,--no-undefined'
        run_tool(['g++', '-shared', *objects, *libraries, *flags, *uses, *runtime, strict,
                  '-o', str(work.libraries / f'lib{name}.so')])
    link_extension(package, work, [*libraries, f'-l{library_name(package.name, "py")}',
                                   f'-l{library_name(package.name, "typesupport_c")}', *runtime])


def link_extension(package: InterfacePackage, work: Workspace, libraries: list[str]) -> None:
    """The Python extension module through which rclpy finds the type supports."""
    out = work.generated('py', package.name)
    module = f'{package.name}_s__rosidl_typesupport_c'
    source = out / f'_{package.name}_s.ep.rosidl_typesupport_c.c'
    target = out / (module + sysconfig.get_config_var('EXT_SUFFIX'))
    depth = os.path.relpath(work.prefix / 'lib', Path(sysconfig.get_path('purelib')) / package.name)
    run_tool(['gcc', *FLAGS, '-shared', *work.includes, str(source), *libraries,
              f'-Wl,-rpath,$ORIGIN/{depth}', '-Wl,--allow-shlib-undefined', '-o', str(target)])


def replace(source: str | Path, target: str | Path) -> None:
    """Copy as a new file: a library that a running process has loaded must not change under it."""
    path = Path(target) / Path(source).name if Path(target).is_dir() else Path(target)
    partial = path.with_name(f'.{path.name}.partial')
    shutil.copy(source, partial)
    partial.replace(path)


def install(package: InterfacePackage, work: Workspace) -> None:
    """Copy into the environment; the stamp goes last, so that an interrupted build is built again."""
    prefix, name = work.prefix, package.name
    stamp_path(name, prefix).unlink(missing_ok=True)
    for generator in GENERATORS[:-1]:
        shutil.copytree(work.generated(generator, name), prefix / 'include' / name / name, dirs_exist_ok=True,
                        ignore=shutil.ignore_patterns('*.c', '*.cpp'))
    for generator in GENERATORS:
        replace(work.libraries / f'lib{library_name(name, generator)}.so', prefix / 'lib')
    shutil.copytree(work.generated('py', name), Path(sysconfig.get_path('purelib')) / name, copy_function=replace,
                    dirs_exist_ok=True, ignore=shutil.ignore_patterns('*.c', 'detail'))
    shutil.copytree(work.share(name), prefix / 'share' / name, dirs_exist_ok=True)
    index = prefix / 'share' / 'ament_index' / 'resource_index'
    interfaces = '\n'.join(str(f) for file in package.files for f in (file, file.with_suffix('.idl')))
    for resource, text in (('packages', ''), ('rosidl_interfaces', interfaces)):
        (index / resource).mkdir(parents=True, exist_ok=True)
        (index / resource / name).write_text(text)
    stamp_path(name, prefix).write_text(json.dumps({'key': content_key(package)}))


def build(packages: list[InterfacePackage], prefix: Path, jobs: int) -> None:
    """Generate, compile on `jobs` cores, link and install `packages` into the environment at `prefix`."""
    with tempfile.TemporaryDirectory(prefix='geo4d_interfaces_') as folder:
        work = Workspace(Path(folder), prefix)
        for package in packages:
            describe(package, work)
        for package in packages:
            generate(package, work)
        units = {package.name: {generator: translation_units(package, generator, work)
                                for generator in GENERATORS} for package in packages}
        tasks = [(unit, name) for name, libraries in units.items() for paths in libraries.values()
                 for unit in paths]
        # C++ first: it takes longest, and no core should be left with it at the end.
        tasks.sort(key=lambda task: task[0].suffix != '.cpp')
        with ThreadPoolExecutor(jobs) as pool:
            list(pool.map(lambda task: compile_unit(*task, work), tasks))
        for package in packages:
            link_package(package, units[package.name], work)
        for package in packages:
            install(package, work)


def main() -> int:
    """Build whatever is missing, and say what."""
    prefix = Path(sys.prefix)
    try:
        states = {package.name: status(package, prefix) for package in all_packages()}
        missing = [package for package in all_packages() if states[package.name] == 'missing']
        if missing:
            print(f'setup: interfaces {", ".join(package.name for package in missing)}', flush=True)
            build(missing, prefix, os.cpu_count() or 1)
    except Geo4dError as error:
        print(f'interfaces: {error}', file=sys.stderr)
        return 2
    return 0


if __name__ == '__main__':
    sys.exit(main())
