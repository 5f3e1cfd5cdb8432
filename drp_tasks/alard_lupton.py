"""Matching of one image's PSF and flux scale to another's: Alard & Lupton (1998), with spatial variation (Alard 2000).

Belongs here: the Gauss–polynomial basis, the fit of a kernel that varies over the image, its application, and the
kernel that whitens the noise of the difference.
Doesn't: images with masks and WCSs, tables, the Butler (`drp_tasks.subtract_images`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import scipy.fft
from astropy.table import Table

_STAMPS_FOR_ORDER = (8, 20)  # stamps without which the kernel may not vary linearly, quadratically
_CORE_RADIUS = 4.5  # pixels: the part of a stamp whose residuals betray a variable or moving source


@dataclass(frozen=True)
class GaussPolynomialBasis:
    """Gaussians of several widths, each times every monomial in x and y up to a degree.

    The first function sums to one; all others are made to sum to zero, so that the coefficient of the first alone
    carries the flux ratio.

    Parameters
    ----------
    sigmas : `tuple` [`float`]
        Widths in pixels, narrowest first.
    degrees : `tuple` [`int`]
        Highest total degree of the monomials of each width.
    half : `int`
        Half size of the kernel: its images have 2 * half + 1 pixels a side.
    """

    sigmas: tuple[float, ...] = (0.8, 1.6, 3.5)
    degrees: tuple[int, ...] = (3, 2, 2)
    half: int = 11

    def __post_init__(self) -> None:
        if len(self.sigmas) != len(self.degrees) or not self.sigmas:
            raise ValueError(f"as many degrees as sigmas are needed: {self.sigmas}, {self.degrees}")

    @property
    def size(self) -> int:
        """Number of basis functions."""
        return len(self._terms)

    @cached_property
    def _factors(self) -> np.ndarray:
        """Every one-dimensional factor exp(-t²/2σ²) (t/σ)^i, shape (n_factors, 2 * half + 1)."""
        t = np.arange(-self.half, self.half + 1, dtype=float)
        return np.array(
            [
                np.exp(-0.5 * (t / sigma) ** 2) * (t / sigma) ** i
                for sigma, degree in zip(self.sigmas, self.degrees, strict=True)
                for i in range(degree + 1)
            ]
        )

    @cached_property
    def _terms(self) -> tuple[tuple[int, int], ...]:
        """For every basis function the indices of its x and y factors."""
        terms, first = [], 0
        for degree in self.degrees:
            terms += [(first + i, first + j) for i in range(degree + 1) for j in range(degree + 1 - i)]
            first += degree + 1
        return tuple(terms)

    @cached_property
    def _mixing(self) -> np.ndarray:
        """Matrix from the separable products to the basis with sums (1, 0, 0, …), shape (size, size)."""
        products = np.array([np.outer(self._factors[j], self._factors[i]) for i, j in self._terms])
        norms = np.sqrt((products**2).sum((1, 2)))
        mixing = np.diag(1.0 / norms)
        sums = products.sum((1, 2)) / norms
        mixing[0] /= sums[0]
        mixing[1:] -= sums[1:, None] * mixing[0]
        return mixing

    @cached_property
    def images(self) -> np.ndarray:
        """The basis functions, shape (size, 2 * half + 1, 2 * half + 1)."""
        products = np.array([np.outer(self._factors[j], self._factors[i]) for i, j in self._terms])
        return np.tensordot(self._mixing, products, 1)

    def convolve_stamps(self, stamps: np.ndarray) -> np.ndarray:
        """Convolve many small images with every basis function, by separable matrix products.

        Parameters
        ----------
        stamps : `numpy.ndarray`
            Shape (n, side, side).

        Returns
        -------
        convolved : `numpy.ndarray`
            Shape (n, size, side - 2 * half, side - 2 * half): only pixels whose whole neighbourhood is in the stamp.
        """
        side = stamps.shape[-1]
        inner = side - 2 * self.half
        shift = np.arange(inner)[:, None] + np.arange(2 * self.half + 1)[None, :]
        bands = np.zeros((len(self._factors), inner, side))
        bands[:, np.arange(inner)[:, None], shift] = self._factors[:, None, ::-1]
        along_x = np.matmul(stamps[:, None], bands.transpose(0, 2, 1)[None])  # (n, n_factors, side, inner)
        in_x, in_y = np.array(self._terms).T
        products = np.matmul(bands[in_y][None], along_x[:, in_x])
        mixed = self._mixing @ products.reshape(len(stamps), self.size, -1)
        return mixed.reshape(len(stamps), self.size, inner, inner)


def _spatial_terms(x: np.ndarray, y: np.ndarray, shape: tuple[int, int], order: int) -> np.ndarray:
    """Monomials up to ``order`` of the position scaled to -1 … 1; shape (n_terms, *x.shape), the constant first."""
    u = 2.0 * np.asarray(x, float) / shape[1] - 1.0
    v = 2.0 * np.asarray(y, float) / shape[0] - 1.0
    return np.array([u**i * v**j for i, j in _exponents(order)])


def _exponents(order: int) -> list[tuple[int, int]]:
    """Return the powers of x and y in the monomials up to ``order``."""
    return [(total - j, j) for total in range(order + 1) for j in range(total + 1)]


@dataclass(frozen=True, eq=False)
class SpatialKernel:
    """A convolution kernel and a background that vary over an image as polynomials.

    Parameters
    ----------
    basis : `GaussPolynomialBasis`
        What the kernel is made of.
    coefficients : `numpy.ndarray`
        Shape (n_spatial_terms, basis.size); the first basis function has a constant term only.
    background : `numpy.ndarray`
        Coefficients of the background's polynomial, in the images' unit.
    shape : `tuple` [`int`, `int`]
        Rows and columns of the image that positions refer to.
    """

    basis: GaussPolynomialBasis
    coefficients: np.ndarray
    background: np.ndarray
    shape: tuple[int, int]

    @property
    def order(self) -> int:
        """Order of the kernel's variation over the image."""
        return _order_of(len(self.coefficients))

    @property
    def flux_ratio(self) -> float:
        """Sum of the kernel: flux in the target image over flux in the reference."""
        return float(self.coefficients[0, 0])

    def image_at(self, x: float, y: float) -> np.ndarray:
        """The kernel at a position (pixels, 0-based), shape (2 * half + 1, 2 * half + 1)."""
        terms = _spatial_terms(np.asarray(x), np.asarray(y), self.shape, self.order)
        return np.tensordot(terms @ self.coefficients, self.basis.images, 1)

    @property
    def central_image(self) -> np.ndarray:
        """The kernel in the middle of the image."""
        return self.image_at(0.5 * self.shape[1], 0.5 * self.shape[0])

    def apply(self, reference: np.ndarray, margin: int = 0) -> np.ndarray:
        """Convolve the reference image and add the background: what the target image should look like.

        Parameters
        ----------
        reference : `numpy.ndarray`
            Finite everywhere, of ``shape`` and ``margin`` more pixels on each side; beyond counts as zero.
        margin : `int`
            By how much the reference is wider than the target on each side; the result has the target's shape.
        """
        half = self.basis.half
        size = [scipy.fft.next_fast_len(n + half, real=True) for n in reference.shape]
        inner = tuple(slice(margin, margin + n) for n in self.shape)
        transform = scipy.fft.rfft2(np.asarray(reference, np.float32), size)
        # One line of columns times one of rows: no monomial needs a power for every pixel.
        u, v = (2.0 * np.arange(n) / n - 1.0 for n in (self.shape[1], self.shape[0]))
        matched = np.zeros(self.shape, np.float32)
        for (i, j), amount in zip(_exponents(_order_of(len(self.background))), self.background, strict=True):
            matched += (amount * v**j).astype(np.float32)[:, None] * (u**i).astype(np.float32)
        for (i, j), row in zip(_exponents(self.order), self.coefficients, strict=True):
            kernel = np.tensordot(row, self.basis.images, 1).astype(np.float32)
            convolved = scipy.fft.irfft2(transform * _centred_transform(kernel, size), size)[inner]
            convolved *= (u**i).astype(np.float32)
            convolved *= (v**j).astype(np.float32)[:, None]
            matched += convolved
        return matched

    def to_table(self) -> Table:
        """One row a coefficient: ``part`` (kernel, background), ``spatialTerm``, ``basisTerm``, ``value``.

        The geometry is in the table's meta.
        """
        n_spatial, n_basis = self.coefficients.shape
        n_background = len(self.background)
        return Table(
            {
                "part": np.array(["kernel"] * (n_spatial * n_basis) + ["background"] * n_background),
                "spatialTerm": np.concatenate([np.repeat(np.arange(n_spatial), n_basis), np.arange(n_background)]),
                "basisTerm": np.concatenate([np.tile(np.arange(n_basis), n_spatial), np.full(n_background, -1)]),
                "value": np.concatenate([self.coefficients.ravel(), self.background]),
            },
            meta={
                "sigmas": list(self.basis.sigmas),
                "degrees": list(self.basis.degrees),
                "half": self.basis.half,
                "shape": list(self.shape),
            },
        )

    @classmethod
    def from_table(cls, table: Table) -> SpatialKernel:
        """The inverse of `to_table`."""
        meta = table.meta
        basis = GaussPolynomialBasis(tuple(meta["sigmas"]), tuple(meta["degrees"]), int(meta["half"]))
        part, value = np.asarray(table["part"]).astype(str), np.asarray(table["value"], float)
        return cls(
            basis,
            value[part == "kernel"].reshape(-1, basis.size),
            value[part == "background"],
            (int(meta["shape"][0]), int(meta["shape"][1])),
        )


@dataclass(frozen=True, eq=False)
class KernelFit:
    """A fitted kernel and how well it did on its stamps."""

    kernel: SpatialKernel
    used: np.ndarray = field(repr=False)  # for every candidate given: was it used in the end?
    n_stamps: int
    chi2: float  # median over the used stamps of chi-squared a pixel


def fit_kernel(
    target: np.ndarray,
    reference: np.ndarray,
    *,
    variance: np.ndarray,
    target_bad: np.ndarray,
    reference_bad: np.ndarray,
    x: np.ndarray,
    y: np.ndarray,
    margin: int = 0,
    basis: GaussPolynomialBasis | None = None,
    order: int = 1,
    background_order: int = 1,
    stamp_half: int = 12,
    model_error: float = 0.01,
    max_bad_fraction: float = 0.05,
    reject_above: float = 3.0,
) -> KernelFit | None:
    """Fit the kernel that turns a sharper reference image into the target image, on stamps around bright sources.

    The kernel is taken as constant over each stamp, as in Alard (2000); so each stamp gives one small normal matrix,
    and stamps whose residuals stand out (variable, moving, blended with an artefact) are left out without forming it
    again.

    Parameters
    ----------
    target, reference : `numpy.ndarray`
        Images on the same pixels, in the same unit; finite. The reference is ``margin`` pixels wider on each side.
    variance : `numpy.ndarray`
        Variance of target minus reference where both are good (the template's noise included).
    target_bad, reference_bad : `numpy.ndarray` [`bool`]
        Pixels not to use. A stamp with a bad reference pixel within the kernel's reach is not used at all.
    x, y : `numpy.ndarray`
        Positions of candidate stamps, pixels of the target.
    margin : `int`
        By how much the reference is wider than the target on each side.
    basis, order, background_order
        The kernel's basis and orders of the polynomials in position. The kernel's order is lowered when stamps are few.
    stamp_half : `int`
        Half size of the region that is fitted, pixels.
    model_error : `float`
        Error of the model as a fraction of the pixel's flux: keeps the brightest star from ruling the fit.
    max_bad_fraction : `float`
        Largest fraction of bad target pixels in a stamp.
    reject_above : `float`
        A stamp is left out when its chi-squared exceeds this times the median.

    Returns
    -------
    fit : `KernelFit` or `None`
        `None` if fewer than three stamps can be used.
    """
    basis = basis or GaussPolynomialBasis()
    shape = (target.shape[0], target.shape[1])
    reach = stamp_half + basis.half
    column, row = np.rint(np.asarray(x, float)).astype(int), np.rint(np.asarray(y, float)).astype(int)
    room = max(stamp_half, reach - margin)
    inside = (column >= room) & (row >= room) & (column < shape[1] - room) & (row < shape[0] - room)
    around = [_box(row[i] + margin, column[i] + margin, reach) for i in range(len(column))]
    chosen = [i for i in np.flatnonzero(inside) if not reference_bad[around[i]].any()]
    chosen = [i for i in chosen if target_bad[_box(row[i], column[i], stamp_half)].mean() <= max_bad_fraction]
    if len(chosen) < 3:
        return None

    def cut(plane: np.ndarray) -> np.ndarray:
        return np.array([plane[_box(row[i], column[i], stamp_half)] for i in chosen], float)

    flux = cut(target)
    good = cut(target_bad) == 0
    weight = good / (cut(variance) + (model_error * flux) ** 2)
    flux, weight = flux.reshape(len(chosen), -1), weight.reshape(len(chosen), -1)
    design = np.concatenate(
        [
            basis.convolve_stamps(np.array([reference[around[i]] for i in chosen], float)).reshape(
                len(chosen), basis.size, -1
            ),
            np.ones((len(chosen), 1, flux.shape[1])),
        ],
        axis=1,
    )
    weighted = design * weight[:, None]
    gram = np.matmul(weighted, design.transpose(0, 2, 1))
    right = np.matmul(weighted, flux[..., None])[..., 0]
    centre = (column[chosen], row[chosen])

    order = min(order, int(np.searchsorted(_STAMPS_FOR_ORDER, len(chosen), side="right")))
    terms = _spatial_terms(*centre, shape, order).T
    sky_terms = _spatial_terms(*centre, shape, background_order).T
    expand = _expansion(basis.size, terms, sky_terms)  # (n_stamps, basis.size + 1, n_parameters)
    matrices = np.matmul(expand.transpose(0, 2, 1), np.matmul(gram, expand))
    vectors = np.matmul(expand.transpose(0, 2, 1), right[..., None])[..., 0]

    used = np.ones(len(chosen), bool)
    solution, chi2 = np.zeros(expand.shape[2]), np.zeros(len(chosen))
    yy, xx = np.mgrid[-stamp_half : stamp_half + 1, -stamp_half : stamp_half + 1]
    core = weight * (np.hypot(xx, yy).ravel() <= _CORE_RADIUS)
    for _ in range(5):
        matrix = matrices[used].sum(0)
        scale = np.sqrt(np.maximum(np.diag(matrix), 1e-300))
        system = matrix / np.outer(scale, scale) + 1e-7 * np.eye(len(scale))
        solution = np.linalg.solve(system, vectors[used].sum(0) / scale) / scale
        model = np.matmul((expand @ solution)[:, None], design)[:, 0]
        chi2 = ((flux - model) ** 2 * weight).sum(1) / np.maximum((weight > 0).sum(1), 1)
        core_chi2 = ((flux - model) ** 2 * core).sum(1) / np.maximum((core > 0).sum(1), 1)
        keep = (chi2 < reject_above * np.median(chi2)) & (core_chi2 < 2 * reject_above * np.median(core_chi2))
        if keep.sum() < 3 or (keep == used).all():
            break
        used = keep
    mask = np.zeros(len(column), bool)
    mask[np.array(chosen)[used]] = True
    n_kernel = basis.size + (basis.size - 1) * (terms.shape[1] - 1)
    coefficients = np.zeros((terms.shape[1], basis.size))
    coefficients[0] = solution[: basis.size]
    coefficients[1:, 1:] = solution[basis.size : n_kernel].reshape(-1, basis.size - 1)
    kernel = SpatialKernel(basis, coefficients, solution[n_kernel:], shape)
    return KernelFit(kernel, mask, int(used.sum()), float(np.median(chi2[used])))


def decorrelation_kernel(
    kernel: np.ndarray, target_variance: float, reference_variance: float, half: int = 11
) -> np.ndarray:
    """Kernel that makes the noise of target - kernel ⊗ reference white again (Reiss & Lupton, DMTN-021).

    It sums to one, so fluxes stay; the white noise that results has variance target + (kernel's sum)² reference.

    Parameters
    ----------
    kernel : `numpy.ndarray`
        The matching kernel, square with an odd side.
    target_variance, reference_variance : `float`
        Variance a pixel of the two images before matching, both white.
    half : `int`
        Half size of the result.
    """
    side = scipy.fft.next_fast_len(2 * max(2 * half + 1, kernel.shape[0]), real=True)
    power = np.abs(_centred_transform(kernel, [side, side])) ** 2
    whole = target_variance + reference_variance * kernel.sum() ** 2
    response = scipy.fft.irfft2(np.sqrt(whole / (target_variance + reference_variance * power)), [side, side])
    psi = np.fft.fftshift(response)[side // 2 - half : side // 2 + half + 1, side // 2 - half : side // 2 + half + 1]
    return psi / psi.sum()


def convolve(image: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """Convolve with a small centred kernel; beyond the edges counts as zero. Same shape as ``image``, float32."""
    half = kernel.shape[0] // 2
    size = [scipy.fft.next_fast_len(n + half, real=True) for n in image.shape]
    transform = scipy.fft.rfft2(np.asarray(image, np.float32), size) * _centred_transform(
        np.asarray(kernel, np.float32), size
    )
    return scipy.fft.irfft2(transform, size)[: image.shape[0], : image.shape[1]]


def _box(row: int, column: int, half: int) -> tuple[slice, slice]:
    return slice(row - half, row + half + 1), slice(column - half, column + half + 1)


def _order_of(n_terms: int) -> int:
    """Order of a complete polynomial in two variables with so many terms."""
    return round((np.sqrt(8 * n_terms + 1) - 3) / 2)


def _centred_transform(kernel: np.ndarray, size: list[int]) -> np.ndarray:
    """Real Fourier transform of a kernel with its centre put at the origin."""
    padded = np.zeros(size, kernel.dtype)
    padded[: kernel.shape[0], : kernel.shape[1]] = kernel
    half_y, half_x = kernel.shape[0] // 2, kernel.shape[1] // 2
    return scipy.fft.rfft2(np.roll(padded, (-half_y, -half_x), (0, 1)), size)


def _expansion(n_basis: int, terms: np.ndarray, sky_terms: np.ndarray) -> np.ndarray:
    """For every stamp the matrix from all parameters to the local kernel coefficients and the local background."""
    n_stamps, n_terms = terms.shape
    n_kernel = n_basis + (n_basis - 1) * (n_terms - 1)
    expand = np.zeros((n_stamps, n_basis + 1, n_kernel + sky_terms.shape[1]))
    diagonal = np.arange(n_basis)
    expand[:, diagonal, diagonal] = 1.0
    for k in range(1, n_terms):
        first = n_basis + (n_basis - 1) * (k - 1)
        expand[:, diagonal[1:], first + diagonal[:-1]] = terms[:, k, None]
    expand[:, n_basis, n_kernel:] = sky_terms
    return expand
