"""The model in use in this worker."""

from __future__ import annotations

import pytest

from tests.fakes import loaded_model
from wine_api.errors import ModelNotLoaded
from wine_api.serving.holder import ModelHolder


@pytest.fixture
def holder():
    return ModelHolder()


def test_there_is_none_at_first(holder):
    assert holder.current() is None


def test_whoever_needs_one_is_told_when_to_try_again(holder):
    with pytest.raises(ModelNotLoaded) as refusal:
        holder.require()

    assert refusal.value.retry_after > 0


def test_answers_with_the_model_that_came_last(holder):
    old, new = loaded_model("1.0"), loaded_model("2.0")
    holder.swap(old)
    holder.swap(new)

    assert holder.current() is new
    assert holder.require() is new


def test_a_swap_leaves_the_old_model_to_whoever_has_it(holder):
    holder.swap(loaded_model("1.0"))
    in_use = holder.require()

    holder.swap(loaded_model("2.0"))

    assert in_use.version == "1.0"


def test_keeps_models_by_name(holder):
    holder.swap(loaded_model("1.0"))
    holder.swap(loaded_model("2.0"), "challenger")

    assert holder.require().version == "1.0"
    assert holder.require("challenger").version == "2.0"
    assert holder.current("nobody") is None
