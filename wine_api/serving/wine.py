"""The words of the domain: what a wine is, what is measured of it, and what a prediction says."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

# Rows are wines and columns are FEATURES, in their order.
Matrix = npt.NDArray[np.float64]

# What a model calls a class: an integer for quality models, a word for others, a float for regressors.
Label = int | float | str


@dataclass(frozen=True, slots=True)
class Feature:
    """One physico-chemical measurement of a wine.

    *minimum* and *maximum* bound what can physically be measured; what a model saw in training is in its card.
    """

    name: str
    unit: str
    description: str
    example: float
    minimum: float = 0.0
    maximum: float | None = None


# The order is the contract: it is the column order of the UCI "Wine Quality" data set (doi:10.24432/C56S3T).
FEATURES: tuple[Feature, ...] = (
    Feature("fixed_acidity", "g/dm3", "Fixed acidity, as tartaric acid", 7.4),
    Feature("volatile_acidity", "g/dm3", "Volatile acidity, as acetic acid", 0.7),
    Feature("citric_acid", "g/dm3", "Citric acid", 0.0),
    Feature("residual_sugar", "g/dm3", "Sugar left after fermentation", 1.9),
    Feature("chlorides", "g/dm3", "Chlorides, as sodium chloride", 0.076),
    Feature("free_sulfur_dioxide", "mg/dm3", "Free sulfur dioxide", 11.0),
    Feature("total_sulfur_dioxide", "mg/dm3", "Total sulfur dioxide", 34.0),
    Feature("density", "g/cm3", "Density", 0.9978),
    Feature("pH", "1", "pH, from 0 (acid) to 14 (alkaline)", 3.51, maximum=14.0),
    Feature("sulphates", "g/dm3", "Sulphates, as potassium sulphate", 0.56),
    Feature("alcohol", "% vol", "Alcohol by volume", 9.4, maximum=100.0),
)

FEATURE_NAMES: tuple[str, ...] = tuple(feature.name for feature in FEATURES)
FEATURE_COUNT = len(FEATURES)


def _fold(spelling: str) -> str:
    """Reduce a spelling to what all spellings of one name share."""
    return re.sub(r"[\s_.\-]+", "", spelling).casefold().replace("sulph", "sulf")


_BY_FOLDED_NAME: Mapping[str, str] = MappingProxyType({_fold(name): name for name in FEATURE_NAMES})


def feature_name(spelling: str) -> str | None:
    """Return the name of the feature that *spelling* means, or None.

    Case, white space, underscores, dots and hyphens do not matter, and "sulph" is "sulf": `pH`, `fixed acidity`,
    `Fixed_Acidity` and `freeSulphurDioxide` are all understood.
    """
    return _BY_FOLDED_NAME.get(_fold(spelling))


@dataclass(frozen=True, slots=True)
class Prediction:
    """What the model says of one wine.

    *confidence* is the probability of *label*, or None where the model has no probabilities. *probabilities* has
    one value a class, in the order of the model's classes.
    """

    label: Label
    confidence: float | None
    probabilities: tuple[float, ...] | None = None
