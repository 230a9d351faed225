"""NoLoCo's outer step (arXiv 2506.10911): a replica meets one other, never all of them.

Replica i has its own outer parameters phi_i and its own momentum delta_i. H inner steps lead from
phi_i to theta_i. Then outer step t takes place within small groups G, which each peer works out for
itself from the seed, t and the list of members, so nothing but those has to be agreed:

    delta_i = alpha*delta_i + beta*(mean_G(theta) - mean_G(phi)) - gamma*(phi_i - mean_G(phi))
    phi_i   = phi_i + delta_i

That is heavy ball, with no look-ahead, and a pull towards the group. The differences are inner
minus outer here and beta has a plus; the paper prints a minus in front of the same difference, and
taken at its word that diverges. The pull sums to zero over a group, so the mean over all replicas
goes as it would with an all-reduce, whatever the groups are.

With gamma == beta, as in the authors' code, phi_i's partners drop out:

    delta_i = alpha*delta_i + beta*(mean_G(theta) - phi_i)

A pair costs each peer one hop and one vector sent (two if gamma != beta), however many peers there
are. There is no barrier and no commit: a peer whose partner is lost goes on as a group of one.

Nothing here communicates, and chance and the number of the step are arguments.
"""

from __future__ import annotations

import numbers
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pyccl.errors import InvalidArgumentError, InvalidTypeError
from pyccl.optim.layout import F32, Array, Layout, parts
from pyccl.optim.vectors import Vectors
from pyccl.options import integer

_MASK = (1 << 64) - 1
_F32_MAX = float(np.finfo(np.float32).max)


def splitmix64(x: int) -> int:
    """The next number of SplitMix64 (Steele, Lea and Flood 2014) after state `x`, modulo 2**64.

    A bijection of the 64-bit numbers, so keys made of distinct ids by it are distinct.
    """
    z = (x + 0x9E3779B97F4A7C15) & _MASK
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _MASK
    return z ^ (z >> 31)


def groups(peers: Sequence[int], seed: int, t: int, size: int = 2) -> list[tuple[int, ...]]:
    """Who meets whom at outer step `t`: each peer is in exactly one of the groups.

    The members stand in the order of splitmix64(splitmix64(splitmix64(seed) ^ t) ^ id), then of
    their ids, and are cut into groups of `size`. One that is left over joins the last group, for
    alone it would learn nothing: an odd world has one triple, and a single peer is alone. Two or
    more that are left over (size > 2) are a smaller group; to add them to another would up to
    double what its members have to send.

    peers: ids of the agreed members, 0 to 2**64 - 1, in any order; those of a communicator are
        hexadecimal numbers.
    seed, t: 0 to 2**64 - 1. The same for all.
    size: at least 2.

    Within a group the order is that of the keys; for NoLoCoState.apply() sort by id. Raises
    InvalidArgumentError.
    """
    integer(size, "size", 2, _MASK)
    members = [integer(peer, f"peers[{i}]", 0, _MASK) for i, peer in enumerate(peers)]
    if not members:
        raise InvalidArgumentError("peers is empty, but names at least this peer itself")
    if len(set(members)) < len(members):
        twice = next(peer for i, peer in enumerate(members) if peer in members[:i])
        raise InvalidArgumentError(f"peers names {twice} twice, but each peer is in one group only")
    key = splitmix64(splitmix64(integer(seed, "seed", 0, _MASK)) ^ integer(t, "t", 0, _MASK))
    ordered = sorted(members, key=lambda peer: (splitmix64(key ^ peer), peer))
    cut = [tuple(ordered[i : i + size]) for i in range(0, len(ordered), size)]
    if len(cut) > 1 and len(cut[-1]) == 1:
        cut[-2:] = [cut[-2] + cut[-1]]
    return cut


def group_of(peer: int, peers: Sequence[int], seed: int, t: int, size: int = 2) -> tuple[int, ...]:
    """The group of `peer` among those of groups(). Raises InvalidArgumentError, also if `peer` is
    not among `peers`."""
    for group in groups(peers, seed, t, size):
        if peer in group:
            return group
    raise InvalidArgumentError(
        f"peer {peer!r} is not among the {len(peers)} members; take both from the same view"
    )


def check_stable(alpha: float, beta: float, gamma: float) -> None:
    """Raises InvalidArgumentError unless alpha is from 0 to below 1, beta above 0, and gamma from 0
    to below 2*(1 - alpha**2).

    From there on pairs in a large world do not keep the replicas' variance from growing. In small
    worlds and larger groups there is some room above, which is not used. Replicas whose partner is
    lost take some away: where a share s of them is alone at each step, what is really needed is
    gamma < 2*(1 - alpha**2) / (1 + s*alpha).
    """
    alpha, beta, gamma = (
        _number(value, name) for value, name in ((alpha, "alpha"), (beta, "beta"), (gamma, "gamma"))
    )
    # The step computes in fp32, where what is close to a bound may lie on it.
    if not alpha >= 0 or not np.float32(alpha) < 1:
        raise InvalidArgumentError(
            f"alpha is {alpha}, but must be from 0 to below 1: it is the share of the momentum "
            "that a step keeps; 0.5 is NoLoCo's own"
        )
    if not np.float32(beta) > 0:
        raise InvalidArgumentError(
            f"beta is {beta}, but must be above 0: it is the outer learning rate, the share of "
            "what the group has learned that is taken over; 0.7 is NoLoCo's own"
        )
    if not gamma >= 0:
        raise InvalidArgumentError(
            f"gamma is {gamma}, but must be 0 or above: it pulls a replica towards its group, and "
            "a negative one pushes it away; leave it out for that of beta"
        )
    bound = 2 * (1 - alpha**2)
    if not gamma < bound:
        raise InvalidArgumentError(
            f"gamma is {gamma}, but must be below 2*(1 - alpha**2), which for alpha {alpha} is "
            f"{bound:.6g}: else the replicas drift apart. Lower alpha (0.5 is NoLoCo's own; the "
            "0.9 of DiLoCo is too much here), or gamma, which is beta where it is left out"
        )


def mean_in_order(vectors: Sequence[Array]) -> Array:
    """((x0 + x1) + x2 + ...) / n, each operation rounded to the type of `vectors`.

    Members of a group list the vectors by ascending peer id, so they all get the same bits.
    """
    total: Array = vectors[0]
    for one in vectors[1:]:
        total = total + one
    mean: Array = total / total.dtype.type(len(vectors))
    return mean


def noloco_step(
    params: Array,
    momentum: Array,
    mean_theta: Array,
    mean_phi: Array | None,
    alpha: float,
    beta: float,
    gamma: float,
) -> tuple[Array, Array]:
    """One outer step: the new (params, momentum), as new arrays.

    params, momentum: phi_i and delta_i, of any shape, in fp32 or fp64.
    mean_theta, mean_phi: means over the group, of the same shape and type. Without `mean_phi` the
        form for gamma == beta is taken, which does not need it.

    The coefficients are rounded to the arrays' type once and each operation is rounded to it, with
    no fused ones. In this order, t1 = alpha*delta, t2 = mean_theta - mean_phi, t3 = beta*t2,
    t4 = t1 + t3, t5 = phi - mean_phi, t6 = gamma*t5, delta = t4 - t6, phi = phi + delta; or
    t1 = alpha*delta, t2 = mean_theta - phi, t3 = beta*t2, delta = t1 + t3, phi = phi + delta.

    Stability is not asked for here; see check_stable(). Raises InvalidArgumentError if `mean_phi`
    is missing though needed, and InvalidTypeError for arrays that do not match.
    """
    if params.dtype not in (np.float32, np.float64):
        raise InvalidTypeError(f"params is of {params.dtype}, but must be of float32 or float64")
    number = params.dtype.type
    a, b, c = number(alpha), number(beta), number(gamma)
    for one in (momentum, mean_theta, params if mean_phi is None else mean_phi):
        if one.shape != params.shape or one.dtype != params.dtype:
            raise InvalidTypeError(
                f"params is {params.dtype}{params.shape}, but another array of the step is "
                f"{one.dtype}{one.shape}"
            )
    kept = a * momentum
    if mean_phi is None:
        if b != c:
            raise InvalidArgumentError(_phis_missing(beta, gamma, "mean_phi"))
        moved = kept + b * (mean_theta - params)
    else:
        moved = kept + b * (mean_theta - mean_phi) - c * (params - mean_phi)
    return params + moved, moved


class NoLoCoState(Vectors):
    """What a replica keeps between outer steps: phi, delta and t. See the head of this module.

    names, arrays: the parameters at the start, of fp16, bf16, fp32 or fp64 (numpy). They are copied
        into one fp32 vector, one behind the other in this order, each in C order. All replicas
        begin with the same ones.
    alpha, beta, gamma: momentum, outer learning rate, and the pull towards the group; gamma is beta
        if left out. As check_stable() asks. The same on all replicas.

    Raises InvalidArgumentError and InvalidTypeError; the text names the array.

        state = NoLoCoState(list(weights), list(weights.values()))
        ...                                                 # H inner steps change the weights
        group = sorted(group_of(me, members, seed, state.step))
        theta = state.theta(list(weights.values()))         # goes to the others of the group
        state.apply([received[peer] for peer in group])     # theta itself being one of them
        state.write(list(weights.values()))
    """

    __slots__ = ("_alpha", "_beta", "_both", "_gamma", "_step")

    def __init__(
        self,
        names: Sequence[str],
        arrays: Sequence[Array],
        *,
        alpha: float = 0.5,
        beta: float = 0.7,
        gamma: float | None = None,
    ) -> None:
        gamma = beta if gamma is None else gamma
        check_stable(alpha, beta, gamma)
        self._alpha, self._beta, self._gamma = float(alpha), float(beta), float(gamma)
        layout = Layout(names, arrays)
        # As one array, so that a step replaces both halves at once.
        self._both: F32 = np.zeros((2, layout.size), np.float32)
        super().__init__(layout, self._both[0], self._both[1])
        self._step = 0
        self._params[...] = layout.check_finite(layout.flatten(arrays), "params")

    @property
    def step(self) -> int:
        """t: outer steps done. May be set, to what the group says."""
        return self._step

    @step.setter
    def step(self, step: int) -> None:
        self._step = integer(step, "step", 0, _MASK)

    @property
    def alpha(self) -> float:
        return self._alpha

    @property
    def beta(self) -> float:
        return self._beta

    @property
    def gamma(self) -> float:
        return self._gamma

    @property
    def needs_phis(self) -> bool:
        """Whether a group exchanges phi beside theta: gamma is not beta (in fp32)."""
        return bool(np.float32(self._gamma) != np.float32(self._beta))

    def theta(self, arrays: Sequence[Array]) -> F32:
        """What inner steps have made of phi: the arrays as one new vector; they are only read.

        Of narrower types than fp32 it is phi and what they have moved from where write() put them,
        so that nothing learned is phi. Raises InvalidArgumentError and InvalidTypeError for other
        arrays than at the start.
        """
        theta = self._layout.flatten(arrays)
        for target, start, one in zip(self.cut(theta), self.views.values(), arrays, strict=True):
            if one.dtype.itemsize < 4:
                target -= start.astype(one.dtype).astype(np.float32)
                target += start
        return theta

    def apply(self, thetas: Sequence[Array], phis: Sequence[Array] | None = None) -> None:
        """Outer step `step`, with what the members of this peer's group have come to.

        thetas: fp32 vectors like `params`, of all members, this peer's own included, by ascending
            peer id; only the own one where the partner is lost.
        phis: their phi before the step, in the same order, if `needs_phis`; None if not.

        Arithmetic is that of mean_in_order() and noloco_step() in fp32. Inputs are only read.
        Raises InvalidArgumentError and InvalidTypeError, also for a NaN or an infinity in an input
        or in what would come of them; params, momentum and step are then what they were. While it
        runs it holds two more vectors.
        """
        given = self._vectors(thetas, "thetas")
        outer = None
        if phis is not None:
            if not self.needs_phis:
                raise InvalidArgumentError(
                    "phis are given, but gamma is beta and the step does not need them; exchange "
                    "thetas only, which is half the traffic"
                )
            outer = self._vectors(phis, "phis")
            if len(outer) != len(given):
                raise InvalidArgumentError(
                    f"there are {len(given)} thetas and {len(outer)} phis, but each member of the "
                    "group has one of both"
                )
        elif self.needs_phis:
            raise InvalidArgumentError(_phis_missing(self._beta, self._gamma, "phis"))

        after = np.empty_like(self._both)
        with np.errstate(over="ignore", invalid="ignore"):
            for part in parts(self._layout.size):
                after[0, part], after[1, part] = noloco_step(
                    self._params[part],
                    self._momentum[part],
                    mean_in_order([one[part] for one in given]),
                    None if outer is None else mean_in_order([one[part] for one in outer]),
                    self._alpha,
                    self._beta,
                    self._gamma,
                )
        self._layout.check_finite(after[0], "phi after the step")
        self._layout.check_finite(after[1], "the momentum after the step")
        self._replace(after, self._step + 1)

    def distance(self, vectors: Sequence[Array]) -> float | None:
        """How far replicas are apart, out of what a group has exchanged anyway.

        vectors: the thetas, or the phis, of a group as for apply(). The mean over all elements and
            all pairs of the group of (x_i - x_j)**2; None for a group of one, which knows nothing.

        If V is the mean square of what the N replicas differ from their mean by, this is
        2*N/(N - 1) * V on the average over random groups. It is a measurement and no part of the
        state, so it is computed in fp64. Raises InvalidArgumentError and InvalidTypeError.
        """
        given = self._vectors(vectors, "vectors")
        pairs = [(x, y) for i, x in enumerate(given) for y in given[i + 1 :]]
        if not pairs:
            return None
        total = 0.0
        for x, y in pairs:
            for part in parts(self._layout.size):
                total += float(np.square(np.subtract(x[part], y[part], dtype=np.float64)).sum())
        return total / len(pairs) / self._layout.size

    def export(self) -> dict[str, Any]:
        """Everything a joiner or a checkpoint needs, as copies: names, shapes, params, momentum,
        step. The coefficients are the caller's to repeat."""
        return {
            "names": list(self._layout.names),
            "shapes": list(self._layout.shapes),
            "params": self._params.copy(),
            "momentum": self._momentum.copy(),
            "step": self._step,
        }

    def import_(self, state: Mapping[str, Any]) -> None:
        """Goes on where export() was called, here or at another replica; `state` is only read.

        Raises InvalidArgumentError and InvalidTypeError for a state of other arrays, or of numbers
        that are not finite; this one is then what it was.
        """
        for key in ("names", "shapes", "params", "momentum", "step"):
            if key not in state:
                raise InvalidArgumentError(f"the state holds no {key!r}; take one of export()")
        self._layout.check_same(state["names"], state["shapes"])
        self.take(state["params"], state["momentum"], state["step"])

    def take(self, params: Array, momentum: Array, step: int) -> None:
        """Becomes what another replica was: copies of the two vectors. Raises as import_() does."""
        both = self._vectors([params, momentum], "(params, momentum)")
        self._replace(np.stack(both), integer(step, "step", 0, _MASK))

    def _replace(self, both: F32, step: int) -> None:
        # Python runs signal handlers after calls (copyto() would be one) and jumps. There is none
        # between these two, so an interrupt does not part them.
        self._both[...] = both
        self._step = step

    def _vectors(self, given: Sequence[Array], what: str) -> list[F32]:
        """The vectors of a group, checked; without copies."""
        vectors = list(given)
        if not vectors:
            raise InvalidArgumentError(f"{what} is empty, but has at least that of this peer")
        for i, one in enumerate(vectors):
            self._layout.check_vector(one, f"{what}[{i}]")
            self._layout.check_finite(one, f"{what}[{i}]")
        return vectors


def _phis_missing(beta: float, gamma: float, what: str) -> str:
    return (
        f"{what} is missing: gamma is {gamma} and beta {beta}, and only if they are equal the step "
        "can do without; exchange phi beside theta, or leave gamma out"
    )


def _number(value: object, name: str) -> float:
    if not isinstance(value, numbers.Real) or not abs(float(value)) <= _F32_MAX:
        raise InvalidArgumentError(f"{name} is {value!r}, but must be a number that fp32 can hold")
    return float(value)
