"""Losses for object detection that see a whole mini-batch at once. Torch is all they need."""

from loss.alrp import ALRPLoss, alrp_loss
from loss.ap import APLoss, ap_loss
from loss.batch import DetectionBatch
from loss.criterion import CRITERIA, Criterion, build_criterion, criterion_type
from loss.cse_autoloss import (
    cse_autoloss_a_classification,
    cse_autoloss_a_regression,
    cse_autoloss_b_classification,
    cse_autoloss_b_regression,
)
from loss.cse_autoloss_criteria import CSEAutoLossA, CSEAutoLossB
from loss.diagnostics import gradient_balance, rank_correlation, score_iou_correlation
from loss.focal_giou import FocalGIoU
from loss.formula_criterion import FormulaLoss
from loss.formula_family import FormulaFamily
from loss.gather import GatheredCriterion
from loss.names import criterion_title
from loss.ndcg import NDCGLoss, ndcg_loss
from loss.parameterized_ap import CURVES, parameterized_ap_loss
from loss.parameterized_ap_criterion import ParameterizedAPLoss
from loss.piecewise_linear import control_points_from_theta, theta_from_control_points
from loss.standard import StandardLoss

__all__ = [
    "CRITERIA",
    "CURVES",
    "ALRPLoss",
    "APLoss",
    "CSEAutoLossA",
    "CSEAutoLossB",
    "Criterion",
    "DetectionBatch",
    "FocalGIoU",
    "FormulaFamily",
    "FormulaLoss",
    "GatheredCriterion",
    "NDCGLoss",
    "ParameterizedAPLoss",
    "StandardLoss",
    "alrp_loss",
    "ap_loss",
    "build_criterion",
    "control_points_from_theta",
    "criterion_title",
    "criterion_type",
    "cse_autoloss_a_classification",
    "cse_autoloss_a_regression",
    "cse_autoloss_b_classification",
    "cse_autoloss_b_regression",
    "gradient_balance",
    "ndcg_loss",
    "parameterized_ap_loss",
    "rank_correlation",
    "score_iou_correlation",
    "theta_from_control_points",
]
