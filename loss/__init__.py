"""Losses for object detection that see a whole mini-batch at once. Torch is all they need."""

from loss.batch import DetectionBatch
from loss.criterion import CRITERIA, Criterion, build_criterion, criterion_type
from loss.focal_giou import FocalGIoU
from loss.parameterized_ap import CURVES, ParameterizedAPLoss, parameterized_ap_loss
from loss.piecewise_linear import control_points_from_theta, theta_from_control_points

__all__ = [
    "CRITERIA",
    "CURVES",
    "Criterion",
    "DetectionBatch",
    "FocalGIoU",
    "ParameterizedAPLoss",
    "build_criterion",
    "control_points_from_theta",
    "criterion_type",
    "parameterized_ap_loss",
    "theta_from_control_points",
]
