"""Planted faults between the image and the first layer, and architectures that are not the checkpoint's."""

import pytest
import torch
from torch import nn

from bob.backbones.base import Backbone
from bob.backbones.preprocess import IMAGENET_MEAN, IMAGENET_STD, Preprocess
from bob.check.base import open_subject
from bob.check.batchnorm import check_batchnorm
from bob.check.normalisation import check_normalisation, known_as

BODY = "return self.trunk({})"


@pytest.mark.parametrize(
    "name", ["efficientnet_lite0", "efficientnet_lite1", "efficientnet_lite2", "mobilenetv2_trunk"]
)
def test_healthy_ones_pass(name, altered, subject_of):
    subject = subject_of(altered(name))
    for finding in (check_normalisation(subject), check_batchnorm(subject)):
        assert (finding.status, finding.remedy) == ("pass", ""), finding


def test_swapped_mean_and_std(altered, subject_of):
    subject = subject_of(altered("mobilenetv2_trunk", mean=IMAGENET_STD, std=IMAGENET_MEAN))
    declared, measured = check_normalisation(subject), check_batchnorm(subject)
    assert (
        declared.status == "fail" and "Swap preprocess.mean and preprocess.std: these are ImageNet's" in declared.remedy
    )
    assert measured.status == "fail" and "set preprocess.mean" in measured.remedy and "ImageNet" in measured.remedy


def test_another_checkpoints_mean_and_std(altered, subject_of):
    subject = subject_of(altered("efficientnet_lite0", mean=IMAGENET_MEAN, std=IMAGENET_STD))
    declared, measured = check_normalisation(subject), check_batchnorm(subject)
    assert declared.status == "fail" and "The checkpoint's own are mean 0.5 0.5 0.5" in declared.remedy
    assert measured.status == "fail" and "those of 0.5 and 0.5" in measured.remedy


@pytest.mark.parametrize(
    ("argument", "remedy"),
    [
        ("(x - 0.5) / 0.5", "those of 0 and 1"),  # it normalises again
        ("(x / 255 - 0.5) / 0.5", "from 0 to 255"),
        ("x * 255", ""),
    ],
)
def test_a_wrapper_that_expects_other_numbers(wrapped, argument, remedy):
    finding = check_batchnorm(wrapped(BODY.format(argument)))
    assert finding.status == "fail" and "other numbers" in finding.remedy and remedy in finding.remedy, finding


def test_a_wrapper_that_expects_bgr(wrapped):
    finding = check_batchnorm(wrapped(BODY.format("x.flip(1)")))
    assert finding.status == "warn" and "BGR" in finding.remedy
    assert check_batchnorm(wrapped(BODY.format("x"))).status == "pass"


@pytest.mark.parametrize("activation", ["silu", "relu"])
def test_a_wrong_activation_for_the_checkpoint(altered, subject_of, activation):
    finding = check_batchnorm(subject_of(altered("efficientnet_lite0", weights={"options": {"act_layer": activation}})))
    assert finding.status == "fail" and "architecture (activation" in finding.remedy


def test_statistics_of_initialisation(altered, subject_of):
    finding = check_batchnorm(subject_of(altered("efficientnet_lite0.random")))
    assert finding.status == "fail" and "running_mean" in finding.remedy


def test_no_batchnorm_to_compare(subject_of, altered):
    finding = check_batchnorm(subject_of(altered("pixels")))
    assert finding.status == "skip" and "no BatchNorm" in finding.detail


@pytest.mark.parametrize(
    ("mean", "std", "status", "text"),
    [
        (IMAGENET_MEAN, IMAGENET_STD, "pass", ""),
        ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0), "pass", ""),
        ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711), "pass", ""),
        (IMAGENET_STD, IMAGENET_MEAN, "fail", "Swap"),
        ((0.9, 0.9, 0.9), (0.05, 0.05, 0.05), "fail", "near mean 0"),
        ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375), "fail", "by 255"),
        ((0.0, 0.0, 0.0), (1 / 255, 1 / 255, 1 / 255), "pass", ""),
        (IMAGENET_MEAN[::-1], IMAGENET_STD[::-1], "warn", "BGR"),
    ],
)
def test_declared_numbers(altered, how, mean, std, status, text):
    backbone = Backbone(altered("pixels"), nn.Flatten(), Preprocess((32, 32), mean=mean, std=std), {})
    finding = check_normalisation(open_subject(backbone, how))
    assert finding.status == status and text in finding.remedy, finding


def test_known_as():
    assert known_as(Preprocess()) == "ImageNet"
    assert known_as(Preprocess(mean=(0.1, 0.2, 0.3))) == ""


def test_measured_against_a_batchnorm_trained_on_the_very_images(altered, how):
    model = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2), nn.BatchNorm2d(8, momentum=1.0), nn.AdaptiveAvgPool2d(1))
    backbone = Backbone(altered("pixels"), model, Preprocess((32, 32)), {})
    subject = open_subject(backbone, how)
    with torch.no_grad():
        model.train()(backbone.preprocess.normalize(subject.photographs))
    model.eval()
    finding = check_batchnorm(subject)
    assert finding.status == "pass"
    assert max(*finding.values["first"], *finding.values["median"]) < 1e-3
