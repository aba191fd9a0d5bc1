"""The query-head adapters against mmdet's stock heads of Deformable DETR and DINO."""

from functools import cache
from typing import Any

import pytest
import torch
from mmdet.models.dense_heads import DINOHead
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmdet.utils import register_all_modules
from mmengine.config import ConfigDict
from mmengine.structures import InstanceData
from torch import Tensor

from paploss.errors import BadConfig
from paploss.strict import merged
from tests.trainers.mmdet.shrink import shrunk
from trainers.config import DetectorConfig, ScheduleConfig
from trainers.datasets.coco import DataConfig
from trainers.mmdet.heads import ADAPTERS, StockLoss
from trainers.mmdet.heads.dino import CriterionDINOHead
from trainers.mmdet.heads.query import CriterionDeformableDETRHead, Layer, QueryHeadAdapter
from trainers.mmdet.models import build_model
from trainers.mmdet.probe import ThetaNotApplied, prove_theta
from trainers.read import load_detector
from trainers.trial import Diverged, TrialSpec

CLASSES, WIDTH, HEIGHT, QUERIES = 3, 96, 64, 20
PARAMETERIZED = {"type": "parameterized_ap"}
SOFTMAX = {"type": "standard", "classification": "cross_entropy", "activation": "softmax"}
WIDE = {  # proposals are embedded in 512 numbers, whatever the width of the transformer
    "as_two_stage": True,
    "with_box_refine": True,
    "neck": {"out_channels": 256, "norm_cfg": {"num_groups": 32}},
    "encoder": {
        "num_layers": 1,
        "layer_cfg": {"self_attn_cfg": {"embed_dims": 256}, "ffn_cfg": {"embed_dims": 256}},
    },
    "decoder": {
        "layer_cfg": {
            "self_attn_cfg": {"embed_dims": 256},
            "cross_attn_cfg": {"embed_dims": 256},
            "ffn_cfg": {"embed_dims": 256},
        }
    },
    "positional_encoding": {"num_feats": 128},
    "bbox_head": {"embed_dims": 256},
}
CHANGES: dict[str, tuple[str, dict[str, Any]]] = {
    "plain": ("deformable_detr_r50", {}),
    "single_level": ("deformable_detr_r50_single_level", {}),
    "refined": ("deformable_detr_r50", {"with_box_refine": True}),
    "two_stage": ("deformable_detr_r50", WIDE),
    "dino": ("dino_r50", {}),
}
VARIANTS = sorted(CHANGES)


@cache
def variant(name: str) -> DetectorConfig:
    file, changes = CHANGES[name]
    detector = shrunk(load_detector(file))
    model = merged(detector.model, {"test_cfg": {"max_per_img": 10}})
    return DetectorConfig(name=name, model=merged(model, changes))


def stock_criterion(name: str) -> dict[str, Any]:
    """What mmdet's file of the detector says, as settings of a criterion."""
    losses = variant(name).model["bbox_head"]
    boxes = {"l1": losses["loss_bbox"]["loss_weight"], "giou": losses["loss_iou"]["loss_weight"]}
    weight = losses["loss_cls"]["loss_weight"]
    return {"type": "standard", "classification": "focal", "boxes": boxes, "cls_weight": weight}


def stock_model(name: str) -> Any:
    register_all_modules()
    model = merged(variant(name).model, {"bbox_head": {"num_classes": CLASSES}})
    torch.manual_seed(0)
    built = MODELS.build(ConfigDict(model))
    built.init_weights()
    return built


def our_model(name: str, criterion: dict[str, Any] | None = None, **head: Any) -> Any:
    detector = variant(name)
    model = merged(detector.model, {"bbox_head": head})
    torch.manual_seed(0)
    built = build_model(
        DetectorConfig(name=name, model=model), criterion or stock_criterion(name), CLASSES
    )
    built.init_weights()
    return built


def truth(*boxes: list[float]) -> InstanceData:
    labels = torch.arange(len(boxes)) % CLASSES
    return InstanceData(bboxes=torch.tensor(boxes, dtype=torch.float32).view(-1, 4), labels=labels)


# The second image has no ground truth; the third is smaller than the batch and padded.
TRUTH = [
    truth([8, 10, 28, 33], [40, 30, 88, 60], [60, 5, 74, 19]),
    truth(),
    truth([5, 5, 20, 20], [20, 16, 50, 44]),
]
DENOISING = 12  # queries: three objects at most, each well and badly drawn, in two groups
NOTHING = [truth(), truth(), truth()]
METAS = [
    {
        "img_shape": shape,
        "ori_shape": shape,
        "batch_input_shape": (HEIGHT, WIDTH),
        "scale_factor": (1.0, 1.0),
    }
    for shape in ((HEIGHT, WIDTH), (HEIGHT, WIDTH), (48, 64))
]


def leaves(head: Any, seed: int) -> list[Tensor]:
    """Decoder scores and box outputs, and where the head has them, those of its proposals and of
    its denoising queries."""
    generator = torch.Generator().manual_seed(seed)
    shapes = [(2, 3, QUERIES)]
    if head.as_two_stage:
        shapes.append((3, 2 * QUERIES))
    if isinstance(head, DINOHead):
        shapes.append((2, 3, DENOISING))
    return [
        torch.randn(*shape, width, generator=generator).requires_grad_()
        for shape in shapes
        for width in (head.cls_out_channels, 4)
    ]


def losses_of(head: Any, outputs: list[Tensor], objects: Any = TRUTH) -> dict[str, Tensor]:
    scores, boxes, *rest = outputs
    boxes = boxes.sigmoid()
    further: list[Any] = []
    if isinstance(head, DINOHead):
        *rest, noisy_scores, noisy_boxes = rest
        scores = torch.cat([noisy_scores, scores], 2)
        boxes = torch.cat([noisy_boxes.sigmoid(), boxes], 2)
        further = [{"num_denoising_queries": noisy_boxes.shape[2], "num_denoising_groups": 2}]
    proposals = [rest[0], rest[1].sigmoid()] if head.as_two_stage else [None, None]
    losses: dict[str, Tensor] = head.loss_by_feat(
        scores, boxes, *proposals, objects, METAS, *further
    )
    return losses


def differentiated(
    model: Any, outputs: list[Tensor], objects: Any = TRUTH
) -> tuple[Tensor, list[Tensor]]:
    total, _ = model.parse_losses(losses_of(model.bbox_head, outputs, objects))
    return total.detach(), list(torch.autograd.grad(total, outputs))


def samples_of(objects: Any) -> list[DetDataSample]:
    samples = []
    for each, meta in zip(objects, METAS, strict=True):
        sample = DetDataSample(metainfo=meta)
        sample.gt_instances = each
        samples.append(sample)
    return samples


def images() -> Tensor:
    return torch.randn(3, 3, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(0))


def trained_once(model: Any, objects: Any) -> tuple[Tensor, dict[str, Tensor | None]]:
    """The sum that is trained on, and its gradient at every parameter that is trained."""
    model.train()
    torch.manual_seed(1)  # dropout, and the noise of denoising queries
    total, _ = model.parse_losses(model(images(), samples_of(objects), mode="loss"))
    total.backward()
    return total.detach(), {n: p.grad for n, p in model.named_parameters() if p.requires_grad}


def largest_difference(ours: list[Tensor], stock: list[Tensor]) -> float:
    """Of two lists of gradients, as a part of each one's largest entry."""
    return max(
        float((a - b).abs().max()) / max(float(b.abs().max()), 1e-6)
        for a, b in zip(ours, stock, strict=True)
        if len(b.flatten())
    )


@pytest.mark.parametrize("objects", [TRUTH, NOTHING], ids=["objects", "nothing"])
@pytest.mark.parametrize("name", VARIANTS)
def test_trains_like_the_stock_head(name: str, objects: Any) -> None:
    stock, ours = stock_model(name), our_model(name)
    outputs = leaves(ours.bbox_head, 0)
    if objects is NOTHING and name == "dino":
        outputs[-2:] = [leaf.detach()[:, :, :0].requires_grad_() for leaf in outputs[-2:]]
    loss, gradients = differentiated(ours, outputs, objects)
    expected, expected_gradients = differentiated(stock, outputs, objects)

    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    assert largest_difference(gradients, expected_gradients) < 1e-4
    if objects is TRUTH:  # otherwise the comparison would not mean much
        assert all(gradient.abs().max() > 0 for gradient in gradients)


@pytest.mark.parametrize("objects", [TRUTH, NOTHING], ids=["objects", "nothing"])
@pytest.mark.parametrize("name", VARIANTS)
def test_trains_the_whole_detector_like_mmdet(name: str, objects: Any) -> None:
    """Every parameter gets a gradient, too: data parallel training waits for one that does not."""
    stock, ours = stock_model(name), our_model(name)
    stock.load_state_dict(ours.state_dict())  # whose weights are initialised
    loss, gradients = trained_once(ours, objects)
    expected, expected_gradients = trained_once(stock, objects)

    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    assert [name for name, gradient in gradients.items() if gradient is None] == []
    pairs = [(gradients[name], other) for name, other in expected_gradients.items()]
    assert largest_difference(*map(list, zip(*pairs, strict=True))) < 1e-3


@pytest.mark.parametrize("name", ["plain", "dino"])
def test_softmax_trains_and_detects_like_the_stock_head(name: str) -> None:
    """mmdet's cross entropy over C + 1 classes, of the denoising queries too."""
    ours = our_model(name, {**SOFTMAX, "boxes": {"l1": 5.0, "giou": 2.0}})
    softmax = {"type": "CrossEntropyLoss", "use_sigmoid": False, "loss_weight": 1.0}
    head = {"num_classes": CLASSES, "loss_cls": {**softmax, "_delete_": True}}
    stock = MODELS.build(ConfigDict(merged(variant(name).model, {"bbox_head": head})))
    outputs = leaves(ours.bbox_head, 0)
    assert outputs[0].shape[-1] == CLASSES + 1
    loss, gradients = differentiated(ours, outputs)
    expected, expected_gradients = differentiated(stock, outputs)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    assert largest_difference(gradients, expected_gradients) < 1e-4
    assert_detects_alike(ours, stock)


@pytest.mark.parametrize("name", VARIANTS)
def test_detects_like_the_stock_head(name: str) -> None:
    assert_detects_alike(our_model(name), stock_model(name))


def assert_detects_alike(ours: Any, stock: Any) -> None:
    stock.load_state_dict(ours.state_dict())  # whose weights are initialised
    with torch.no_grad():
        found = ours.eval()(images(), samples_of(TRUTH), mode="predict")
        expected = stock.eval()(images(), samples_of(TRUTH), mode="predict")
    for one, other in zip(found, expected, strict=True):
        assert len(one.pred_instances) == 10
        for key in ("scores", "labels", "bboxes"):
            assert torch.equal(one.pred_instances[key], other.pred_instances[key])


def layer_of(seed: int = 1, classes: int = CLASSES) -> Layer:
    generator = torch.Generator().manual_seed(seed)
    scores = torch.randn(3, QUERIES, classes, generator=generator).requires_grad_()
    boxes = torch.rand(3, QUERIES, 4, generator=generator).requires_grad_()
    return Layer("", scores, boxes, TRUTH)


def test_the_batch_has_one_query_for_each_object() -> None:
    layer = layer_of()
    head = our_model("plain").bbox_head
    batch = head.detection_batch(layer, METAS)

    assert torch.equal(batch.logits, layer.scores.flatten(0, 1))
    assert (batch.weights == 1).all()
    assert batch.images.tolist() == [0] * QUERIES + [1] * QUERIES + [2] * QUERIES
    assert batch.images[batch.pos].tolist() == [0, 0, 0, 2, 2]
    assert batch.avg_factor == 5.0
    assert batch.box_avg_factor == 5.0
    # Each object once, with its label; in pixels of its own image, not of the padded batch.
    found = sorted(
        (*(round(x) for x in box), label)
        for box, label in zip(
            batch.target_boxes.tolist(), batch.labels[batch.pos].tolist(), strict=True
        )
    )
    objects = sorted(
        (*map(int, box), label)
        for each in TRUTH
        for box, label in zip(each.bboxes.tolist(), each.labels.tolist(), strict=True)
    )
    assert found == objects
    sizes = [[96.0, 64.0]] * 3 + [[64.0, 48.0]] * 2
    assert batch.anchor_sizes.tolist() == sizes
    x, y, w, h = layer.boxes.flatten(0, 1)[batch.pos].unbind(1)
    width, height = torch.tensor(sizes).unbind(1)
    corners = [(x - w / 2) * width, (y - h / 2) * height, (x + w / 2) * width, (y + h / 2) * height]
    torch.testing.assert_close(batch.pred_boxes, torch.stack(corners, 1))
    assert torch.equal(batch.deltas, torch.stack([x, y, w, h], 1))
    x1, y1, x2, y2 = batch.target_boxes.unbind(1)
    encoded = [(x1 + x2) / 2 / width, (y1 + y2) / 2 / height, (x2 - x1) / width, (y2 - y1) / height]
    torch.testing.assert_close(batch.target_deltas, torch.stack(encoded, 1))


def test_more_objects_than_queries() -> None:
    """Some objects stay unmatched; the head counts those that are."""
    layer = layer_of()
    few = Layer("", layer.scores[:, :2], layer.boxes[:, :2], TRUTH)
    batch = our_model("plain").bbox_head.detection_batch(few, METAS)
    assert batch.images[batch.pos].tolist() == [0, 0, 2, 2]
    assert batch.avg_factor == 4.0


@pytest.mark.parametrize(("name", "labels"), [("two_stage", {0}), ("dino", {0, 1, 2})])
def test_proposals_are_matched_to_what_mmdet_matches_them_to(name: str, labels: set[int]) -> None:
    head = our_model(name).bbox_head
    truth = head.proposal_truth(TRUTH)
    assert set(torch.cat([each.labels for each in truth]).tolist()) == labels
    assert TRUTH[0].labels.tolist() == [0, 1, 2], "the decoder's own truth stays"


def test_every_layer_is_ranked_on_its_own_and_named_as_in_mmdet() -> None:
    model = our_model("dino", PARAMETERIZED)
    head = model.bbox_head
    outputs = leaves(head, 3)
    losses = losses_of(head, outputs)
    own = {name: loss for name, loss in losses.items() if not head.is_stock(name)}
    assert set(own) == {"d0.loss_pap", "loss_pap", "enc_loss_pap"}
    stock = set(losses_of(stock_model("dino").bbox_head, outputs))
    assert set(losses) - set(own) == {name for name in stock if "dn_" in name}
    for k, name in enumerate(["d0.loss_pap", "loss_pap"]):
        layer = Layer("", outputs[0][k], outputs[1][k].sigmoid(), TRUTH)
        alone = head.criterion(head.detection_batch(layer, METAS))["loss_pap"]
        assert own[name].item() == alone.item()


def test_keep_l1_is_the_l1_of_the_stock_head() -> None:
    """The same boxes twice: once by a criterion with an L1 of its own, once kept beside it."""
    whole, kept = our_model("two_stage"), {**stock_criterion("two_stage"), "boxes": {"giou": 2.0}}
    beside = our_model("two_stage", kept, keep_l1=5.0)
    outputs = leaves(whole.bbox_head, 4)
    expected, expected_gradients = differentiated(whole, outputs)
    loss, gradients = differentiated(beside, outputs)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)
    assert largest_difference(gradients, expected_gradients) < 1e-5
    names = {name for name in losses_of(beside.bbox_head, outputs) if "l1" in name}
    assert names == {"d0.loss_kept_l1", "loss_kept_l1", "enc_loss_kept_l1"}
    assert "loss_kept_l1" not in losses_of(whole.bbox_head, outputs)


@pytest.mark.parametrize("weight", [-1.0, float("nan"), float("inf")])
def test_a_weight_that_is_none_is_refused(weight: float) -> None:
    with pytest.raises(BadConfig, match="keep_l1"):
        our_model("plain", keep_l1=weight)


@pytest.mark.parametrize("broken", ["scores", "boxes"])
def test_outputs_that_are_no_numbers_are_a_divergence(broken: str) -> None:
    """The matching cannot take them, which is no fault of the trial's machine."""
    layer = layer_of()
    spoiled = getattr(layer, broken).detach().clone()
    spoiled[0, 0, 0] = float("nan")
    head = our_model("plain").bbox_head
    with pytest.raises(Diverged, match="not finite"):
        head.detection_batch(layer._replace(**{broken: spoiled}), METAS)


@pytest.mark.parametrize("criterion", [None, PARAMETERIZED], ids=["standard", "parameterized_ap"])
@pytest.mark.parametrize("name", ["two_stage", "dino"])
def test_bfloat16_is_computed_in_float32(name: str, criterion: Any) -> None:
    model = our_model(name, criterion)
    outputs = [leaf.detach().bfloat16() for leaf in leaves(model.bbox_head, 7)]
    plain = [leaf.float().requires_grad_() for leaf in outputs]
    # The same numbers as boxes, which a sigmoid in bfloat16 would round.
    expected, expected_gradients = differentiated(model, plain)
    with torch.autocast("cpu", torch.bfloat16):
        loss, gradients = differentiated(model, [leaf.requires_grad_() for leaf in plain])
    assert loss.dtype == torch.float32
    assert torch.equal(loss, expected)
    for gradient, other in zip(gradients, expected_gradients, strict=True):
        assert torch.equal(gradient, other)

    rounded = Layer("", outputs[0][0], outputs[1][0].sigmoid(), TRUTH)
    batch = model.bbox_head.detection_batch(rounded, METAS)
    assert batch.logits.dtype == batch.pred_boxes.dtype == batch.deltas.dtype == torch.float32


def test_boxes_are_regressed_in_float32() -> None:
    """bfloat16 has 8 bits, so that boxes would stand on a grid of 1/256 of the image."""
    head = our_model("plain").bbox_head
    hidden, reference = torch.randn(2, 1, QUERIES, 16), torch.rand(1, QUERIES, 2)
    exact = head(hidden, [reference, reference])
    with torch.autocast("cpu", torch.bfloat16):
        found = head(hidden, [reference, reference])
    for one, other in zip(found, exact, strict=True):
        assert torch.equal(one, other)


class ForgottenPath(QueryHeadAdapter, DINOHead):
    """Trains on what mmdet's head trains on, whatever its criterion says."""

    loss_by_feat = DINOHead.loss_by_feat


def use(monkeypatch: pytest.MonkeyPatch, stock: str, head: type) -> None:
    MODELS.register_module(module=head, force=True)
    monkeypatch.setitem(ADAPTERS, stock, head.__name__)


def test_a_head_that_still_calls_its_stock_losses_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, "DINOHead", ForgottenPath)
    head = our_model("dino").bbox_head
    assert isinstance(head, ForgottenPath)
    with pytest.raises(RuntimeError, match="stock loss"):
        losses_of(head, leaves(head, 0))


@pytest.mark.parametrize("name", ["plain", "dino"])
def test_no_stock_loss_is_left_in_the_head(name: str) -> None:
    head = our_model(name).bbox_head
    for loss in (head.loss_cls, head.loss_bbox, head.loss_iou):
        assert isinstance(loss, StockLoss)
    if name == "dino":
        assert not isinstance(head.denoising.loss_cls, StockLoss)
        assert list(head.denoising.parameters()) == []


def spec_of(
    name: str, shapes: DataConfig, criterion: Any = None, theta: Any = None, **changes: Any
) -> TrialSpec:
    detector = variant(name)
    detector = DetectorConfig(name=name, model=merged(detector.model, changes))
    schedule = ScheduleConfig(image_size=(WIDTH, HEIGHT))
    return TrialSpec(
        detector=detector, data=shapes, criterion=criterion or stock_criterion(name), theta=theta,
        schedule=schedule, seed=0,
    )  # fmt: skip


def prove(spec: TrialSpec) -> str:
    return prove_theta(
        build_model(spec.detector, spec.criterion_settings, len(spec.data.classes)), spec
    )


@pytest.mark.parametrize("keep_l1", [0.0, 5.0])
@pytest.mark.parametrize("name", VARIANTS)
def test_a_sound_head_passes(
    name: str, keep_l1: float, shapes: DataConfig, theta: tuple[float, ...]
) -> None:
    prints = set()
    for criterion, point in ((PARAMETERIZED, theta), (None, None), (SOFTMAX, None)):
        prints.add(prove(spec_of(name, shapes, criterion, point, bbox_head={"keep_l1": keep_l1})))
    assert len(prints) == 3


def test_what_is_kept_shows_in_the_fingerprint(
    shapes: DataConfig, theta: tuple[float, ...]
) -> None:
    prints = {
        prove(spec_of("plain", shapes, PARAMETERIZED, theta, bbox_head={"keep_l1": weight}))
        for weight in (0.0, 1.0, 5.0)
    }
    assert len(prints) == 3


class DropsGradientScale(CriterionDINOHead):
    def __init__(self, *args: Any, criterion: dict[str, Any], **kwargs: Any) -> None:
        left = {key: value for key, value in criterion.items() if key != "gradient_scale"}
        super().__init__(*args, criterion=left, **kwargs)


class ForgetsALayer(CriterionDINOHead):
    def loss_by_feat(self, *args: Any, **kwargs: Any) -> Any:
        return {
            k: v for k, v in super().loss_by_feat(*args, **kwargs).items() if k != "d0.loss_pap"
        }


class ForgetsProposals(CriterionDINOHead):
    def loss_by_feat(self, scores: Any, boxes: Any, *rest: Any) -> Any:
        return super().loss_by_feat(scores, boxes, None, None, *rest[2:])


class RanksLayersTogether(CriterionDeformableDETRHead):
    def loss_by_feat(self, scores: Any, boxes: Any, _: Any, __: Any, truth: Any, metas: Any) -> Any:
        together = Layer("", scores.flatten(0, 1), boxes.flatten(0, 1), truth * len(scores))
        loss = self.criterion(self.detection_batch(together, metas * len(scores)))["loss_pap"]
        return {"loss_pap": loss * len(scores)}


class DenoisesMatchedQueries(CriterionDINOHead):
    def loss_by_feat(self, scores: Any, *args: Any) -> Any:
        losses = super().loss_by_feat(scores, *args)
        return losses | {"dn_loss_cls": losses["dn_loss_cls"] + 1e-2 * scores[:, :, -1].mean()}


class DropsWhatIsKept(CriterionDINOHead):
    def loss_by_feat(self, *args: Any) -> Any:
        losses = super().loss_by_feat(*args)
        return losses | {"loss_kept_l1": losses["loss_kept_l1"].detach()}


@pytest.mark.parametrize(
    ("head", "differs"),
    [
        (DropsGradientScale, "d_boxes"),
        (ForgetsALayer, "loss"),
        (ForgetsProposals, "loss"),
        (RanksLayersTogether, "loss"),
        (DenoisesMatchedQueries, "d_scores"),
        (DropsWhatIsKept, "d_boxes"),
    ],
)
def test_a_head_that_ignores_a_part_of_theta_fails(
    head: type,
    differs: str,
    shapes: DataConfig,
    theta: tuple[float, ...],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stock = "DINOHead" if issubclass(head, DINOHead) else "DeformableDETRHead"
    use(monkeypatch, stock, head)
    name = "dino" if stock == "DINOHead" else "plain"
    spec = spec_of(name, shapes, PARAMETERIZED, theta, bbox_head={"keep_l1": 5.0})
    with pytest.raises(ThetaNotApplied, match=f"its {differs} differs"):
        prove(spec)


def test_the_probe_sees_both_ends_of_every_curve(shapes: DataConfig) -> None:
    """Pairs over the whole window, and boxes from bad to good: else a part would go unseen."""
    from loss.localization import giou_score
    from trainers.mmdet.probe import made_up

    spec = spec_of("plain", shapes)
    head = build_model(spec.detector, spec.criterion_settings, len(shapes.classes)).bbox_head
    batches = head.run_made_up(made_up(head, spec)).batches
    for batch in batches:
        positive = batch.logits[batch.pos, batch.labels[batch.pos]]
        x = (batch.logits.flatten()[None] - positive[:, None]) / 2 + 0.5
        assert torch.histc(x[(x > 0) & (x < 1)], 10, 0, 1).min() > 100
    u = torch.cat([giou_score(batch.pred_boxes, batch.target_boxes) for batch in batches])
    assert u.min() < 0.5
    assert u.max() > 0.8
