"""The little of torch that the FoundationPose worker touches, with a pretended GPU."""

import os

import numpy as np

float32 = np.float32


class Tensor:
    def __init__(self, array):
        self.array = np.asarray(array)
        self.shape = self.array.shape

    def cpu(self):
        return self

    def numpy(self):
        return self.array

    def reshape(self, *shape):
        return Tensor(self.array.reshape(*shape))


def as_tensor(array, dtype=None, device=None):
    assert device == 'cuda'
    return Tensor(np.asarray(array, dtype))


class cuda:
    @staticmethod
    def is_available():
        return os.environ.get('FAKE_FP_CUDA', '1') == '1'

    @staticmethod
    def get_device_name(index):
        return 'pretended GPU'
