"""Stands in for nvdiffrast.torch."""


class RasterizeCudaContext:
    pass
