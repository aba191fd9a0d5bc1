"""The made-up images: what is positive, and what a criterion gets to see."""

import pytest
import torch

from loss import FocalGIoU
from loss.localization import iou_and_giou
from loss.scene import make_scene

SCENE = make_scene(12)
IMAGES = torch.arange(12)


def overlaps():
    """[I, A, G], 0 where no object is."""
    there = SCENE.classes < SCENE.num_classes
    pairs = iou_and_giou(SCENE.anchors[:, None], SCENE.objects[:, None])[0]
    return pairs * there[:, None]


def test_positives_are_what_overlaps_enough_and_each_objects_best():
    most = overlaps().amax(2)
    positive = SCENE.labels < SCENE.num_classes
    assert bool(positive[most >= 0.5].all())
    best = overlaps().amax(1, keepdim=True)
    mine = ((overlaps() == best) & (best > 0)).any(2)
    assert torch.equal(positive, (most >= 0.5) | mine)
    ignored = SCENE.weights == 0
    assert torch.equal(ignored, (most >= 0.4) & (most < 0.5) & ~mine)


def test_a_positive_has_the_class_and_the_box_of_an_object():
    image, anchor = (SCENE.labels < SCENE.num_classes).nonzero().T
    same = (SCENE.matched[image, anchor][:, None] == SCENE.objects[image]).all(-1)
    kinds = SCENE.classes[image] == SCENE.labels[image, anchor][:, None]
    assert len(image) > 12 and bool((same & kinds).any(1).all())


def test_objects_lie_inside_and_hardly_overlap():
    there = SCENE.classes < SCENE.num_classes
    boxes = SCENE.objects[there]
    assert bool((boxes >= 0).all()) and bool((boxes <= 64).all())
    assert bool((there.sum(1) >= 1).all())
    pairs = iou_and_giou(SCENE.objects[:, :, None], SCENE.objects[:, None])[0]
    apart = ~torch.eye(there.shape[1], dtype=torch.bool) & there[:, None] & there[:, :, None]
    assert float(pairs[apart].max()) < 0.2


def test_deltas_of_boxes_give_the_boxes_back():
    deltas = SCENE.encode(SCENE.matched)
    torch.testing.assert_close(SCENE.decode(deltas), SCENE.matched, rtol=1e-4, atol=1e-3)
    anchors = SCENE.decode(torch.zeros_like(deltas))
    torch.testing.assert_close(anchors, SCENE.anchors.expand_as(anchors))


def test_a_batch_with_the_right_outputs_has_hardly_a_loss():
    own = torch.nn.functional.one_hot(SCENE.labels, SCENE.num_classes + 1)[..., :-1]
    batch = SCENE.batch(IMAGES, 20.0 * own - 10, SCENE.encode(SCENE.matched))
    assert len(batch.pos) == int((SCENE.labels < SCENE.num_classes).sum())
    for value in FocalGIoU()(batch).values():
        assert float(value) == pytest.approx(0, abs=1e-3)


def test_the_same_arguments_make_the_same_scene_and_others_another():
    again, other = make_scene(12), make_scene(12, seed=1)
    for name in ("features", "objects", "labels"):
        assert torch.equal(getattr(again, name), getattr(SCENE, name))
        assert not torch.equal(getattr(other, name), getattr(SCENE, name))


def test_locations_show_what_lies_there_and_do_not_give_it_away():
    positive = (SCENE.labels < SCENE.num_classes).view(12, 64, -1).any(2).double().flatten()
    features = SCENE.features.flatten(0, 1).double()
    weights = torch.linalg.lstsq(features, positive - positive.mean()).solution
    explained = 1 - (positive - positive.mean() - features @ weights).var() / positive.var()
    # 64 features of noise would explain 64 / 768.
    assert 0.15 < explained < 0.9
