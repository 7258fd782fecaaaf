import numpy as np
import pytest
from matplotlib.figure import Figure

from bob.data.objects import IGNORE, encode_masks
from bob.pictures.draw import colours, draw_classes, draw_objects


@pytest.fixture
def axes():
    return Figure().add_subplot()


@pytest.fixture
def image():
    return np.full((10, 12, 3), 100, np.uint8)


def shown(axes):
    return np.asarray(axes.images[0].get_array())


def test_colours_stay_apart():
    palette = colours(18)
    assert palette.shape == (18, 3) and palette.min() >= 0 and palette.max() <= 1
    assert len(np.unique(palette.round(3), axis=0)) == 18


def test_masks_cover_their_pixels(axes, image):
    masks = np.zeros((1, 10, 12), bool)
    masks[0, 2:5, 3:7] = True
    box, label = np.array([[3.0, 2, 7, 5]]), np.array([1])
    draw_objects(axes, image, box, label, ("a", "b"), np.array([0.75]), encode_masks(masks))
    changed = (np.abs(shown(axes) - 100 / 255) > 1e-6).any(axis=-1)
    np.testing.assert_array_equal(changed, masks[0])
    assert [text.get_text() for text in axes.texts] == ["b 0.75"]
    assert axes.lines[0].get_xdata().tolist() == [3, 7, 7, 3, 3]


def test_ignored_pixels_are_grey(axes, image):
    map_ = np.zeros((10, 12), np.int16)
    map_[:, :2] = IGNORE
    draw_classes(axes, image, map_, ("sky",))
    grey = shown(axes)[0, 0]
    assert np.ptp(grey) < 1e-6 and np.ptp(shown(axes)[0, 5]) > 0.1
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["sky", "ignored"]
