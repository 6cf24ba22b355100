from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch

from llmembed.errors import ConfigError
from llmembed.fusion import FUSIONS, available, build_fusion

TABLE_1 = [
    *("last", "avg", "max", "concat"),
    *("avg_b", "max_b", "concat_b"),
    *("avg_r", "max_r", "concat_r"),
    *("avg_b_r", "max_b_r", "concat_b_r"),
    *("co", "co_avg"),
]


def _views(shapes, count=4, seed=0):
    rng = np.random.default_rng(seed)
    return {
        name: rng.normal(size=(count, *shape)).astype(np.float32) for name, shape in shapes.items()
    }


def _fused(name, views, **settings):
    shapes = {view: array.shape[1:] for view, array in views.items()}
    fusion = build_fusion(name, shapes, **settings).eval()
    with torch.no_grad():
        out = fusion({view: torch.from_numpy(array) for view, array in views.items()})
    assert out.shape == (len(views["L"]), fusion.features)
    return out.numpy(), fusion


def _expected(name, views, sigma, aligned=None):
    """Table 1 in plain numpy; ``aligned`` (N, L, K) stands for the mapped depths."""
    depths = views["L"]
    reduced = {
        "last": depths[:, 0],
        "avg": depths.mean(1),
        "max": depths.max(1),
        "concat": depths.reshape(len(depths), -1),
    }
    flat = {view: array.reshape(len(array), -1) for view, array in views.items() if view != "L"}
    kind, _, rest = name.partition("_")
    if kind != "co":
        return np.concatenate(
            [reduced[kind], *(flat[extra.upper()] for extra in rest.split("_") if extra)], 1
        )
    rows = np.concatenate([depths if aligned is None else aligned, views["B"], views["R"]], 1)
    products = np.einsum("nik,njk->nij", rows, rows) / rows.shape[2]
    squashed = (1 - np.exp(-sigma * products)) / (1 + np.exp(-sigma * products))
    pieces = [squashed.reshape(len(rows), -1)]
    if rest:
        pieces.append(reduced["avg"])
    if rest == "avg_cat":
        pieces += [flat["B"], flat["R"]]
    return np.concatenate(pieces, 1)


def test_the_table_is_complete_and_numbered():
    assert [FUSIONS[name].number for name in TABLE_1] == list(range(1, 16))
    assert set(FUSIONS) == {*TABLE_1, "co_avg_cat"}
    assert FUSIONS["co_avg_cat"].number is None


@pytest.mark.parametrize("name", FUSIONS)
@pytest.mark.parametrize("depths", [1, 2, 5])
def test_numbers_equal_plain_numpy(name, depths):
    views = _views({"L": (depths, 12), "B": (1, 12), "R": (1, 12)})
    out, fusion = _fused(name, views, sigma=0.3, width=12)
    assert not fusion.has_parameters
    np.testing.assert_allclose(out, _expected(name, views, 0.3), atol=1e-5)


@pytest.mark.parametrize("name", ["co", "co_avg", "co_avg_cat"])
@pytest.mark.parametrize("align", ["relu", "linear"])
def test_depths_wider_than_k_go_through_a_map_of_their_own(name, align):
    views = _views({"L": (3, 20), "B": (1, 8), "R": (1, 8)})
    out, fusion = _fused(name, views, sigma=0.5, align=align)
    weights = {key: value.numpy() for key, value in fusion.state_dict().items()}
    mapped = np.stack(
        [
            views["L"][:, d] @ weights[f"maps.L.{d}.weight"].T + weights[f"maps.L.{d}.bias"]
            for d in range(3)
        ],
        axis=1,
    )
    if align == "relu":
        mapped = np.maximum(mapped, 0)
    assert fusion.has_parameters
    assert set(weights) == {f"maps.L.{d}.{part}" for d in range(3) for part in ("weight", "bias")}
    np.testing.assert_allclose(out, _expected(name, views, 0.5, mapped), atol=1e-5)


def test_the_papers_widths():
    shapes = {"L": (5, 4096), "B": (1, 1024), "R": (1, 1024)}
    wanted = {"last": 4096, "avg": 4096, "concat": 20480, "avg_b": 5120, "concat_r": 21504}
    wanted |= {"max_b_r": 6144, "co": 49, "co_avg": 4145, "co_avg_cat": 6193}
    with torch.device("meta"):
        built = {name: build_fusion(name, shapes) for name in wanted}
    assert {name: fusion.features for name, fusion in built.items()} == wanted
    assert {name for name, fusion in built.items() if fusion.has_parameters} == {
        "co",
        "co_avg",
        "co_avg_cat",
    }


def test_the_default_width_leaves_something_to_train():
    def width(**shapes):
        return build_fusion("co", shapes).width

    with torch.device("meta"):
        assert width(L=(5, 4096), B=(1, 1024), R=(1, 1024)) == 1024
        assert width(L=(5, 384), B=(1, 384), R=(1, 384)) == 96
        assert width(L=(5, 384), B=(1, 1024)) == 1024
        assert width(L=(2, 2), B=(1, 2)) == 1


def test_any_number_of_backbones_depths_and_widths():
    views = _views({"L": (3, 10), "B": (1, 6), "R": (1, 4), "E": (2, 7)})
    out, _ = _fused("concat_b_r", views)
    flat = [views[view].reshape(4, -1) for view in ("L", "B", "R", "E")]
    np.testing.assert_array_equal(out, np.concatenate(flat, 1))
    out, fusion = _fused("co_avg_cat", views)
    assert fusion.width == 4  # the narrowest extra's
    assert set(fusion.maps) == {"L", "B", "E"}
    assert out.shape[1] == (3 + 1 + 1 + 2) ** 2 + 10 + 6 + 4 + 14
    out, fusion = _fused("co", {view: views[view] for view in ("L", "E")}, width=5)
    assert out.shape == (4, 25)


@pytest.mark.parametrize("name", FUSIONS)
def test_the_lexical_view_is_joined_at_the_end(name):
    shapes = {"L": (2, 6), "B": (1, 6), "R": (1, 6)}
    views = _views({**shapes, "lexical": (1, 3)})
    out, fusion = _fused(name, views, width=6)
    plain, _ = _fused(name, {view: views[view] for view in shapes}, width=6)
    np.testing.assert_array_equal(out, np.concatenate([plain, views["lexical"][:, 0]], 1))
    assert fusion.views[-1] == "lexical"


@pytest.mark.parametrize("align", ["relu", "linear"])
@pytest.mark.parametrize("sigma", [0.1, 0.5, 2.0])
def test_gradients_flow_at_k_1024(align, sigma):
    torch.manual_seed(0)
    shapes = {"L": (5, 2048), "B": (1, 1024), "R": (1, 1024)}
    fusion = build_fusion("co", shapes, sigma=sigma, align=align)
    views = {name: torch.randn(8, *shape) for name, shape in shapes.items()}
    out = fusion(views)
    out.sum().backward()
    for parameter in fusion.parameters():
        assert parameter.grad is not None
        assert parameter.grad.abs().max() > 1e-6
    # tanh's slope is 1 - tanh^2: it must not have died anywhere, the diagonal included
    assert (1 - out.detach().square()).min() > 0.1
    # without dividing by K the diagonal's slope is gone at the first step
    raw = torch.tanh(sigma / 2 * views["B"].square().sum(2))
    assert (1 - raw.square()).max() < 1e-6


def test_gradients_equal_finite_differences():
    torch.manual_seed(0)
    shapes = {"L": (2, 5), "B": (1, 3), "R": (1, 3)}
    fusion = build_fusion("co_avg", shapes, sigma=1.5, align="linear").double()
    views = [
        torch.randn(2, *shape, dtype=torch.float64, requires_grad=True) for shape in shapes.values()
    ]
    assert torch.autograd.gradcheck(
        lambda *tensors: fusion(dict(zip(shapes, tensors, strict=True))), views
    )


def test_dropout_acts_on_the_relu_map_in_training_only():
    torch.manual_seed(0)
    shapes = {"L": (2, 64), "B": (1, 32)}
    fusion = build_fusion("co", shapes, dropout=0.5)
    views = {name: torch.randn(16, *shape) for name, shape in shapes.items()}
    assert not torch.equal(fusion(views), fusion(views))
    fusion.eval()
    assert torch.equal(fusion(views), fusion(views))


def test_settings_rebuild_the_same_module():
    shapes = {"L": (2, 9), "B": (1, 4), "R": (1, 4), "unused": (1, 2)}
    first = build_fusion("co_avg", shapes, sigma=0.4, width=6, align="linear", dropout=0.1)
    again = build_fusion(**first.settings)
    again.load_state_dict(first.state_dict())
    views = {name: torch.randn(3, *shape) for name, shape in first.shapes.items()}
    assert torch.equal(first.eval()(views), again.eval()(views))
    assert build_fusion("avg", shapes).views == ("L",)


@pytest.mark.parametrize(
    ("name", "shapes", "settings", "message"),
    [
        ("average", {"L": (1, 4)}, {}, "unknown fusion 'average'"),
        ("avg_b", {"L": (5, 4), "R": (1, 4)}, {}, "needs the view.s. B"),
        ("concat_b_r", {"L": (5, 4)}, {}, "needs the view.s. B, R"),
        ("co", {"L": (5, 4), "lexical": (1, 3)}, {}, "needs the view.s. B"),
        ("last", {"B": (1, 4)}, {}, "needs the view.s. L"),
        ("avg", {"L": (0, 4)}, {}, "depths, width"),
        ("co", {"L": (2, 4), "B": (1, 4)}, {"sigma": 0}, "sigma is 0"),
        ("co", {"L": (2, 4), "B": (1, 4)}, {"width": 0}, "width is 0"),
        ("co", {"L": (2, 4), "B": (1, 4)}, {"align": "tanh"}, "align is 'tanh'"),
        ("co", {"L": (2, 4), "B": (1, 4)}, {"dropout": 1.0}, "dropout is 1.0"),
    ],
)
def test_what_makes_no_sense_is_refused(name, shapes, settings, message):
    with pytest.raises(ConfigError, match=message):
        build_fusion(name, shapes, **settings)


@pytest.mark.parametrize("name", FUSIONS)
def test_views_of_another_shape_are_refused(name):
    shapes = {"L": (5, 8), "B": (1, 8), "R": (1, 8)}
    fusion = build_fusion(name, shapes)
    views = {view: torch.zeros(2, *shape) for view, shape in shapes.items()}
    with pytest.raises(ConfigError, match=r"'L' with .* \(5, 8\): got .*\(2, 4, 8\)"):
        fusion({**views, "L": torch.zeros(2, 4, 8)})
    with pytest.raises(ConfigError, match="misses the view 'L'"):
        fusion({"B": views["B"], "R": views["R"]})


def test_available_leaves_out_what_is_missing_or_doubled():
    assert available({"L": (5, 8), "B": (1, 8), "R": (1, 8)}) == tuple(FUSIONS)
    assert available({"L": (5, 8)}) == ("last", "avg", "max", "concat")
    assert available({"L": (1, 8)}) == ("last",)
    with_b = available({"L": (1, 8), "B": (1, 8)})
    assert with_b == ("last", "avg_b", "co", "co_avg", "co_avg_cat")
    assert available({}) == ()


def test_the_table_loads_without_torch():
    code = "import sys, llmembed.fusion, llmembed.heads; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
