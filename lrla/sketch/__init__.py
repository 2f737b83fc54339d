"""Random sketches: immutable operators S with E[S S^T] = I, their products with data, and a transformer."""

from lrla.sketch._make_sketch import make_sketch, sketch_all
from lrla.sketch._operator import SketchOperator
from lrla.sketch._sketch_transform import SketchTransform

__all__ = ["SketchOperator", "SketchTransform", "make_sketch", "sketch_all"]
