"""The largest overlap with a default box, found without comparing with all of them."""

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.ops import box_iou

from falconet.doctor.labels import best_overlaps
from falconet.heads.boxes import box_shapes, corners_of, default_boxes


@settings(max_examples=50, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    count=st.integers(0, 20),
    grids=st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9)), min_size=1, max_size=4),
    least=st.sampled_from([0.05, 0.2]),
)
def test_it_is_that_of_comparing_with_all(
    seed: int, count: int, grids: list[tuple[int, int]], least: float
) -> None:
    rng = np.random.default_rng(seed)
    corners = rng.uniform(-0.2, 1.2, (count, 2, 2))
    unit = np.concatenate([corners.min(axis=1), corners.max(axis=1) + 0.01], axis=1)
    defaults = default_boxes(grids, box_shapes(len(grids), min_scale=least))
    expected = box_iou(torch.from_numpy(unit), corners_of(defaults).double()).amax(dim=1).numpy()
    np.testing.assert_allclose(best_overlaps(unit, defaults.numpy()), expected, rtol=1e-5, atol=1e-7)
