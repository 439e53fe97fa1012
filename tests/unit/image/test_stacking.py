"""What an environment is stacked on."""

from hypothesis import given
from hypothesis import strategies as st

from prebuilt_spawner.image.stacking import Stack, StackedLayer, best_first, usable


def stack(digest: str, *layers: str) -> Stack:
    """Each layer is written as its wheels: `ab` has the wheels `a` and `b`; `-x` are whiteouts with that digest."""
    return Stack(
        digest=digest,
        layers=tuple(
            StackedLayer(diff_id=layer, wheels=frozenset() if layer.startswith("-") else frozenset(layer))
            for layer in layers
        ),
    )


def shared(layers: Stack, wheels: str, whiteouts: str | None = None) -> list[str]:
    return [layer.diff_id for layer in usable(layers, wheels=wheels, whiteouts=whiteouts).layers]


def test_all_layers_of_a_subset_are_usable() -> None:
    """An environment that has every wheel of another and more stands on all its layers."""
    assert shared(stack("s", "a", "bc"), "abcd") == ["a", "bc"]


def test_the_layers_below_the_first_unwanted_wheel_are_usable() -> None:
    """Nothing above it is, since a layer's identity is that of all below."""
    assert shared(stack("s", "a", "b", "cx", "d"), "abcd") == ["a", "b"]
    assert shared(stack("s", "x", "a"), "a") == []


def test_whiteouts_must_be_the_same_or_come_on_top() -> None:
    """A stack that takes away what stays, or less than what goes, is of no use; one that takes nothing away is."""
    assert shared(stack("s", "-x", "a"), "a", "-x") == ["-x", "a"]
    assert shared(stack("s", "-x", "a"), "a", "-y") == []
    assert shared(stack("s", "-x", "a"), "a", None) == []
    assert shared(stack("s", "a"), "a", "-x") == ["a"]


def test_whiteouts_alone_are_not_worth_it() -> None:
    """They would tie an image to another one for nothing."""
    assert shared(stack("s", "-x", "b"), "a", "-x") == []


def test_what_saves_most_comes_first_and_what_is_deep_not_at_all() -> None:
    """Bytes count, then fewer layers, then the name."""
    sizes = {"a": 100, "b": 1, "c": 1}
    known = [stack("bc", "bc"), stack("split", "a", "b"), stack("whole", "ab"), stack("none", "x"), stack("twin", "ab")]
    found = best_first(known, sizes_bytes=sizes, whiteouts=None, max_layers=9)
    assert [each.digest for each in found] == ["twin", "whole", "split", "bc"]
    found = best_first(known, sizes_bytes=sizes, whiteouts=None, max_layers=1)
    assert [each.digest for each in found] == ["twin", "whole", "bc"]


LAYERS = st.lists(st.text("abcdef", min_size=1, max_size=3).map(lambda text: "".join(sorted(set(text)))), max_size=5)


@given(layers=LAYERS, wheels=st.sets(st.sampled_from("abcdef")))
def test_no_usable_layer_has_an_unwanted_wheel(layers: list[str], wheels: set[str]) -> None:
    """And what is usable is always the lowest layers, as they are."""
    made = stack("s", *layers)
    found = usable(made, wheels=wheels, whiteouts=None)
    assert found.wheels <= wheels
    assert made.layers[: len(found.layers)] == found.layers
