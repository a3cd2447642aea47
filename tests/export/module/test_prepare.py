"""What is done to a program before its matrices are looked for: torch's own module is the reference."""

import torch
from torch import nn

from satchel.export.module.capture import flatten, trace
from satchel.export.module.prepare import prepare
from satchel.export.module.weights import find_weights, other_parameters


class Pooled(nn.Module):
    """A learned query that looks at rows, as SigLIP's head, and rows that look at other rows."""

    def __init__(self):
        super().__init__()
        self.probe = nn.Parameter(torch.randn(1, 1, 32))
        self.pool = nn.MultiheadAttention(32, 4, batch_first=True)
        self.cross = nn.MultiheadAttention(32, 4, batch_first=True)

    def forward(self, x, y):
        seen = self.cross(x, y, y, need_weights=False)[0]
        return self.pool(self.probe, seen, seen, need_weights=False)[0]


def test_the_pieces_of_a_matrix_are_matrices():
    torch.manual_seed(0)
    module, given = Pooled().eval(), (torch.randn(1, 5, 32), torch.randn(1, 7, 32))
    program, inputs = flatten(trace(module, given, {}, None))
    prepared = prepare(program, inputs)
    weights = find_weights(prepared)
    sizes = {"cross": 0, "pool": 0}
    for weight in weights:
        sizes[weight.name.split(".")[0]] += weight.size
    # Of the pool the query's own matrix is multiplied with a parameter, once and for all.
    assert sizes == {"cross": 4 * 32 * 32, "pool": 3 * 32 * 32}
    assert not [name for name in other_parameters(prepared, weights) if "in_proj" in name]
    with torch.no_grad():
        wanted = module(*given)
    assert torch.allclose(prepared(inputs)["output"], wanted, atol=1e-6)
