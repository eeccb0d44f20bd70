"""The quantization types that llama.cpp's quantizer offers.

A type names a mixture: most matrices get ``tensor_type``, the ones that hurt more get a few bits more, and vectors
(norms, biases) stay as they are. Output and embedding matrices get their own type, usually Q6_K. A whole file is
therefore larger than ``bits`` says, the more so the smaller the model. ``bits_8b`` is the average over all weights of a
model with the shapes of Llama 3 8B, as the quantizer plans it; the size of a real file is predicted before work starts.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from ..convert.errors import InputError, UnknownType
from ..convert.ggml import TYPES as TENSOR_TYPES
from ..convert.ggml import GGMLType


@dataclass(frozen=True, slots=True)
class Type:
    """One quantization type.

    native_id: its number in llama.cpp (``llama_ftype``, also ``general.file_type`` of the file).
    bits_8b: bits per weight of a whole Llama 3 8B file, embeddings and output included.
    about: one sentence on what to expect.
    needs_imatrix: it is only usable with an importance matrix; without one the quantizer refuses.
    """

    name: str
    native_id: int
    tensor_type: GGMLType
    bits_8b: float
    about: str
    needs_imatrix: bool = False

    @property
    def bits(self) -> float:
        """Bits per weight of the matrices that get ``tensor_type``, scales included."""
        return self.tensor_type.bits_per_weight


def _type(
    name: str, native_id: int, tensor_type: str, bits_8b: float, about: str, *, needs_imatrix: bool = False
) -> Type:
    return Type(name, native_id, TENSOR_TYPES[tensor_type], bits_8b, about, needs_imatrix)


_ALL = (
    _type("F32", 0, "F32", 32.0, "Full precision; twice the size of a 16-bit checkpoint and nothing gained from one."),
    _type("BF16", 32, "BF16", 16.0, "What most checkpoints are stored in; lossless for those."),
    _type("F16", 1, "F16", 16.0, "Half precision; loses nothing visible, and is faster than BF16 on older CPUs."),
    _type("Q8_0", 7, "Q8_0", 8.5, "Practically indistinguishable from 16 bits; quick to make."),
    _type("Q6_K", 18, "Q6_K", 6.56, "Very close to Q8_0 in quality at three quarters of its size."),
    _type(
        "Q5_K_M", 17, "Q5_K", 5.7, "A small, rarely noticed loss; the choice when memory allows a bit more than Q4_K_M."
    ),
    _type("Q5_K_S", 16, "Q5_K", 5.57, "Q5_K_M without the extra bits for sensitive matrices."),
    _type("Q5_1", 9, "Q5_1", 6.04, "An older format; larger than Q5_K_M and no better."),
    _type("Q5_0", 8, "Q5_0", 5.57, "An older format; Q5_K_S is usually better at the same size."),
    _type("Q4_K_M", 15, "Q4_K", 4.89, "The usual choice: a good balance of size, speed and quality."),
    _type("Q4_K_S", 14, "Q4_K", 4.67, "A little smaller and a little worse than Q4_K_M."),
    _type("IQ4_NL", 25, "IQ4_NL", 4.68, "Non-linear 4 bits; also fits rows that are no multiple of 256."),
    _type(
        "IQ4_XS", 30, "IQ4_XS", 4.46, "Smaller than Q4_K_S at similar quality; slower to make and on some CPUs to run."
    ),
    _type("Q4_1", 3, "Q4_1", 5.1, "An older format; larger than Q4_K_M and usually worse."),
    _type("Q4_0", 2, "Q4_0", 4.64, "An older format; worse than Q4_K_S, but reads prompts fastest on many CPUs."),
    _type(
        "MXFP4_MOE", 38, "MXFP4", 8.5, "4-bit floats for the experts of mixture models; every other matrix gets Q8_0."
    ),
    _type("Q3_K_L", 13, "Q3_K", 4.3, "A visible loss; for when Q4_K_S does not fit."),
    _type("Q3_K_M", 12, "Q3_K", 4.0, "A clear loss on models under 7 billion parameters."),
    _type("Q3_K_S", 11, "Q3_K", 3.64, "A strong loss; prefer IQ3_S or IQ3_M at this size."),
    _type("IQ3_M", 27, "IQ3_S", 3.76, "The better 3 bits; slow to run on CPUs."),
    _type("IQ3_S", 26, "IQ3_S", 3.66, "Better than Q3_K_S at the same size; slow to run on CPUs."),
    _type("IQ3_XS", 22, "IQ3_S", 3.5, "Between IQ3_S and IQ3_XXS.", needs_imatrix=True),
    _type("IQ3_XXS", 23, "IQ3_XXS", 3.37, "About 3 bits; a clear loss on small models.", needs_imatrix=True),
    _type("Q2_K", 10, "Q2_K", 3.16, "A severe loss; a smaller model with more bits is usually better."),
    _type("Q2_K_S", 21, "Q2_K", 2.97, "Q2_K without the extra bits for sensitive matrices.", needs_imatrix=True),
    _type("IQ2_M", 29, "IQ2_S", 2.93, "For large models only.", needs_imatrix=True),
    _type("IQ2_S", 28, "IQ2_XS", 2.74, "For large models only.", needs_imatrix=True),
    _type("IQ2_XS", 20, "IQ2_XS", 2.59, "For very large models that fit no other way.", needs_imatrix=True),
    _type("IQ2_XXS", 19, "IQ2_XXS", 2.38, "For very large models that fit no other way.", needs_imatrix=True),
    _type("IQ1_M", 31, "IQ1_M", 2.15, "Mostly a curiosity; answers degrade badly.", needs_imatrix=True),
    _type("IQ1_S", 24, "IQ1_S", 2.0, "The smallest of its kind; answers degrade badly.", needs_imatrix=True),
    _type("TQ2_0", 37, "TQ2_0", 2.52, "For models trained with ternary weights; ruins any other."),
    _type("TQ1_0", 36, "TQ1_0", 2.19, "For models trained with ternary weights, smaller and slower; ruins any other."),
    _type("Q2_0", 41, "Q2_0", 2.68, "For models trained with 2-bit weights; ruins any other."),
    _type("Q1_0", 40, "Q1_0", 1.48, "For models trained with 1-bit weights; ruins any other."),
)

TYPES: Mapping[str, Type] = MappingProxyType({kind.name: kind for kind in _ALL})
"""Every type: 16 bits and more, then the general ones from large to small, then those for models trained for them."""

ALIASES: Mapping[str, str] = MappingProxyType({"Q3_K": "Q3_K_M", "Q4_K": "Q4_K_M", "Q5_K": "Q5_K_M"})


def find(name: str) -> Type:
    """The type of that name, in any case.

    Raises:
        UnknownType: there is none; the hint lists the nearest names.
    """
    wanted = name.strip().upper().replace("-", "_")
    found = TYPES.get(ALIASES.get(wanted, wanted))
    if found is None:
        near = difflib.get_close_matches(wanted, [*TYPES, *ALIASES], n=3, cutoff=0.5)
        did_you_mean = f"did you mean {' or '.join(near)}? " if near else ""
        raise UnknownType(
            f"there is no quantization type {name!r}",
            hint=f"{did_you_mean}`ingle quantize --types` lists all",
            param="type",
        )
    return found


def require_usable(name: str) -> Type:
    """The type of that name, if it can be made without an importance matrix.

    Raises:
        UnknownType: there is none. InputError: it needs an importance matrix.
    """
    kind = find(name)
    if kind.needs_imatrix:
        raise InputError(
            f"{kind.name} needs an importance matrix",
            hint="make one (ingle imatrix MODEL --on TEXT) and give it with --imatrix, or choose a type that needs "
            "none: Q2_K, IQ3_S or Q3_K_M among the small ones",
            param="type",
        )
    return kind
