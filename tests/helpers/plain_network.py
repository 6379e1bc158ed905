"""The Flax module's own passes as functions of the variables, for comparisons."""

from typing import Any, cast

import jax

from siamrpn_jax.model.network import Detection, SiamRPN
from siamrpn_jax.model.rpn import Template


def embed_template(model: SiamRPN, variables: Any, z: jax.Array) -> Template:
    """Exemplar patches ``[B, Z, Z, 3]`` to detection kernels."""
    return cast(Template, model.apply(variables, z, method="embed_template"))


def detect(
    model: SiamRPN, variables: Any, template: Template, x: jax.Array
) -> Detection:
    """Search patches ``[B, X, X, 3]`` to logits and offsets."""
    return cast(Detection, model.apply(variables, template, x, method="detect"))
