"""NumPy arrays as msgpack maps: dtype, shape, codec, bytes. No pickle; sizes are checked before memory is taken."""

from __future__ import annotations

import io
import math
from dataclasses import dataclass
from typing import Any, TypedDict

import msgpack
import numpy as np
import zstandard
from PIL import Image

from geo4d_ros.errors import InvalidInputError, require

COMPRESSIONS = ('none', 'zstd', 'png', 'jpeg')
DTYPES = {np.dtype(name).str: np.dtype(name) for name in
          ('bool', 'uint8', 'uint16', 'int8', 'int32', 'int64', 'float32', 'float64')}
MAX_DIMENSIONS = 8
MAX_LENGTH, MAX_VALUES = 4096, 20_000  # of one list or map, of all in a message
SMALL = 1024  # bytes below which nothing is compressed
JPEG_QUALITY = 90
MILLIMETRE = 1e-3
_IMAGE_FORMATS = {'png': ('PNG', 'RGB'), 'jpeg': ('JPEG', 'RGB'), 'png16': ('PNG', 'I;16')}


@dataclass
class Budget:
    """How many bytes of arrays one message may still unfold to."""

    left: int

    def take(self, count: int) -> None:
        """InvalidInputError when the message is larger than it may be."""
        require(count <= self.left, f'arrays of the message exceed the limit by {count - self.left} bytes')
        self.left -= count


class PackedArray(TypedDict):
    """An array in a message."""

    dtype: str  # of DTYPES
    shape: list[int]
    codec: str  # none, zstd, png, png16 or jpeg
    data: bytes


def pack_array(a: np.ndarray, compression: str) -> PackedArray:
    """The array as a map.

    none: as it is. zstd: lossless (the default). png: colour lossless, depth rounded to millimetres (16 bit).
    jpeg: colour lossy, depth as png. Colour is (H, W, 3) uint8, depth (H, W) float32 [m]; all else goes as zstd.
    """
    codec = _codec(a, compression)
    if codec in ('png', 'jpeg'):
        data = _write_image(Image.fromarray(np.ascontiguousarray(a)), codec)
    elif codec == 'png16':
        data = _write_image(Image.fromarray(np.rint(a / MILLIMETRE).astype(np.uint16)), codec)
    else:
        data = np.packbits(a).tobytes() if a.dtype == np.bool_ else np.ascontiguousarray(a).tobytes()
        if codec == 'zstd':
            data = zstandard.ZstdCompressor(level=1).compress(data)
    return {'dtype': a.dtype.str, 'shape': list(a.shape), 'codec': codec, 'data': data}


def _codec(a: np.ndarray, compression: str) -> str:
    require(a.dtype.str in DTYPES, f'arrays of {a.dtype} do not go over the wire')
    if compression == 'none' or a.nbytes < SMALL:
        return 'none'
    if compression in ('png', 'jpeg'):
        if a.dtype == np.uint8 and a.ndim == 3 and a.shape[2] == 3:
            return compression
        if a.dtype == np.float32 and a.ndim == 2 and a.min() >= 0 and a.max() <= 65535 * MILLIMETRE:
            return 'png16'
    return 'zstd'


def _write_image(image: Image.Image, codec: str) -> bytes:
    buffer = io.BytesIO()
    options = {'quality': JPEG_QUALITY} if codec == 'jpeg' else {'compress_level': 1}
    image.save(buffer, _IMAGE_FORMATS[codec][0], **options)
    return buffer.getvalue()


def unpack_array(name: str, value: Any, budget: Budget) -> np.ndarray:
    """The array of a map made by `pack_array`; InvalidInputError for anything else, before memory is taken for it."""
    require(isinstance(value, dict) and set(value) == {'dtype', 'shape', 'codec', 'data'},
            f'{name} should be an array (dtype, shape, codec, data)')
    shape, data = value['shape'], value['data']
    require(isinstance(value['dtype'], str) and value['dtype'] in DTYPES, f'{name} has an unknown dtype')
    require(isinstance(data, bytes), f'{name}.data should be bytes')
    require(isinstance(shape, list) and len(shape) <= MAX_DIMENSIONS
            and all(type(n) is int and 0 <= n < 2**31 for n in shape), f'{name} has no valid shape')
    dtype = DTYPES[value['dtype']]
    count = math.prod(shape)
    budget.take(count * dtype.itemsize)
    try:
        return _decode(name, data, value['codec'], dtype, shape, count)
    except (ValueError, OSError, SyntaxError, zstandard.ZstdError, Image.DecompressionBombError) as error:
        raise InvalidInputError(f'{name} cannot be decoded: {error}') from error


def _decode(name: str, data: bytes, codec: Any, dtype: np.dtype, shape: list[int], count: int) -> np.ndarray:
    if codec in ('png', 'jpeg', 'png16'):
        wanted = (np.float32, 2) if codec == 'png16' else (np.uint8, 3)
        require((dtype, len(shape)) == wanted and (codec == 'png16' or shape[2] == 3), f'{name} is no picture')
        kind, mode = _IMAGE_FORMATS[codec]
        with Image.open(io.BytesIO(data), formats=[kind]) as image:
            require(image.size == (shape[1], shape[0]) and image.mode == mode, f'{name} is not of its stated size')
            pixels = np.array(image)
        return pixels if codec != 'png16' else (pixels * MILLIMETRE).astype(np.float32)
    require(codec in ('none', 'zstd'), f'{name} has an unknown codec')
    size = -(-count // 8) if dtype == np.bool_ else count * dtype.itemsize
    if codec == 'zstd':
        require(zstandard.frame_content_size(data) == size, f'{name} does not unfold to its stated size')
        data = zstandard.ZstdDecompressor().decompress(data, max_output_size=size)
    require(len(data) == size, f'{name} has {len(data)} bytes, expected {size}')
    if dtype == np.bool_:
        return np.unpackbits(np.frombuffer(data, np.uint8), count=count).astype(bool).reshape(shape)
    return np.frombuffer(data, dtype).reshape(shape).copy()


def pack(message: dict[str, Any]) -> bytes:
    """A message as bytes."""
    return msgpack.packb(message, use_bin_type=True)


def unpack(data: Any) -> dict[str, Any]:
    """The map in `data`; InvalidInputError for anything else."""
    require(isinstance(data, bytes), 'a message should be binary')
    count = _Count()
    try:
        message = msgpack.unpackb(data, raw=False, strict_map_key=True, ext_hook=_refuse_extension, list_hook=count,
                                  object_hook=count, max_array_len=MAX_LENGTH, max_map_len=MAX_LENGTH,
                                  max_str_len=1 << 16)
    except (ValueError, TypeError, RecursionError, msgpack.UnpackException) as error:
        raise InvalidInputError(f'not a message: {type(error).__name__}') from error
    require(isinstance(message, dict), 'a message should be a map')
    return message


class _Count:
    """Ends the unfolding of a message of very many tiny values, which takes a hundred times its bytes."""

    def __init__(self) -> None:
        self.left = MAX_VALUES

    def __call__(self, values: Any) -> Any:
        self.left -= 1 + len(values)
        if self.left < 0:
            raise ValueError(f'more than {MAX_VALUES} values')
        return values


def _refuse_extension(code: int, data: bytes) -> Any:
    raise ValueError(f'extension type {code}')
