"""The networks of PyTorch's VAE tutorials, by the names of their layers."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """Names of the layers of a PyTorch program, in the order of the computation.

    A name with ``*`` stands for increasing numbers: layers of an ``nn.Sequential``
    (``decoder.*``), or layers that are numbered (``encoder.conv*``). Names that
    programs use in place of each other are separated by ``|``; the first is the one
    that `to_torch` writes, and an empty last one stands for a layer that may be absent.

    Attributes:
      title: what the program is, in a few words.
      encoder: the layers of the encoder; of an autoencoder with that of the code, last.
      heads: of a VAE, the layers of the means and of the log-variances.
      decoder: the layers of the decoder.
      kind: model that has these parts.
      settings: fields of `VAEConfig` or `AutoencoderConfig` that the shapes of the
        tensors do not tell, as the program is usually printed.
    """

    title: str
    encoder: tuple[str, ...]
    heads: tuple[str, ...] = ()
    decoder: tuple[str, ...]
    kind: Literal["vae", "autoencoder"] = "vae"
    settings: Mapping[str, str | float] = field(default_factory=dict)

    @property
    def parts(self) -> dict[str, tuple[str, ...]]:
        """The patterns of the encoder and of the decoder."""
        return {"encoder": self.encoder, "decoder": self.decoder}


def _heads(prefix: str = "") -> tuple[str, str]:
    """Names in circulation of the layers of the means and the log-variances."""
    return _either(prefix, _MEANS), _either(prefix, _LOG_VARS)


def _either(prefix: str, names: str) -> str:
    return "|".join(prefix + name for name in names.split())


_MEANS = "fc_mu fc_mean fc21 mu mean fc_means linear_mu mu_layer mean_layer fc1_mu"
_LOG_VARS = (
    "fc_logvar fc_log_var fc_var fc22 logvar log_var fc_logvars linear_logvar "
    "logvar_layer log_var_layer fc1_logvar"
)
_TRANSPOSED = "deconv* conv* convT* conv_t* conv_trans* conv_transpose* tconv* convt*"
_CONV: dict[str, str | float] = {"encoder": "conv", "strides": 2, "padding": 1}
_LEAKY: dict[str, str | float] = {"activation": "leaky_relu", "negative_slope": 0.2}

ARCHITECTURES: dict[str, Architecture] = {
    "pytorch_examples": Architecture(
        title="github.com/pytorch/examples, vae: 784-400-20",
        encoder=("fc1",),
        heads=("fc21", "fc22"),
        decoder=("fc3", "fc4"),
    ),
    "encoder_decoder": Architecture(
        title="classes Encoder and Decoder, fc1, fc21, fc22 and fc1, fc2: 784-400-20",
        encoder=("encoder.fc1",),
        heads=("encoder.fc21", "encoder.fc22"),
        decoder=("decoder.fc1", "decoder.fc2"),
    ),
    "encoder_decoder_mu": Architecture(
        title="classes Encoder and Decoder, fc1, fc_mu, fc_logvar and fc1, fc2",
        encoder=("encoder.fc1|encoder.fc|encoder.linear1|encoder.fc_in",),
        heads=_heads("encoder."),
        decoder=(
            "decoder.fc1|decoder.fc|decoder.linear1|decoder.fc_in",
            "decoder.fc2|decoder.fc_out|decoder.linear2|decoder.out|decoder.fc3",
        ),
    ),
    "encoder_decoder_out": Architecture(
        title="classes Encoder and Decoder, fc_mean, fc_log_var, fc_out: 784-256-2",
        encoder=("encoder.fc1",),
        heads=("encoder.fc_mean", "encoder.fc_log_var"),
        decoder=("decoder.fc1", "decoder.fc_out"),
    ),
    "flat": Architecture(
        title="one class with fc1, fc_mu, fc_logvar, fc2, fc3: 784-400-20",
        encoder=("fc1",),
        heads=_heads(),
        decoder=("fc2|fc3|fc_decode", "fc3|fc4|fc_out"),
    ),
    "flat_deep": Architecture(
        title="one class with fc1, fc2, fc31, fc32, fc4, fc5, fc6: 784-512-256-2",
        encoder=("fc1", "fc2"),
        heads=("fc31", "fc32"),
        decoder=("fc4", "fc5", "fc6"),
    ),
    "fc_input": Architecture(
        title="Encoder and Decoder, FC_input, FC_input2, FC_mean, FC_var, FC_hidden",
        encoder=("Encoder.FC_input", "Encoder.FC_input2"),
        heads=("Encoder.FC_mean", "Encoder.FC_var"),
        decoder=("Decoder.FC_hidden", "Decoder.FC_hidden2", "Decoder.FC_output"),
        settings=_LEAKY,
    ),
    "sequential": Architecture(
        title="encoder_layers and decoder as nn.Sequential, fc_mu, fc_logvar",
        encoder=("encoder_layers.*",),
        heads=("fc_mu", "fc_logvar"),
        decoder=("decoder.*|decoder_layers.*",),
    ),
    "sequential_encoder": Architecture(
        title="encoder and decoder as nn.Sequential, fc_mu, fc_logvar; dense or conv",
        encoder=("encoder.*",),
        heads=_heads(),
        decoder=("decoder_input|decoder_fc|fc_decode|fc_dec|", "decoder.*"),
    ),
    "sequential_conv": Architecture(
        title="encoder_conv and decoder_conv with BatchNorm2d, decoder_fc: 1-32-64-128",
        encoder=("encoder_conv.*", "encoder_fc.*|encoder_fc|"),
        heads=_heads(),
        decoder=("decoder_fc|decoder_fc.*|decoder_input", "decoder_conv.*"),
        settings=_CONV | _LEAKY,
    ),
    "conv_layers": Architecture(
        title="Encoder and Decoder with conv_layers as nn.Sequential, fc",
        encoder=("encoder.conv_layers.*", "encoder.fc1|encoder.fc|"),
        heads=_heads("encoder."),
        decoder=("decoder.fc|decoder.fc.*|decoder.fc*", "decoder.conv_layers.*"),
        settings=_CONV,
    ),
    "conv_dense": Architecture(
        title="Encoder and Decoder with conv1, conv2, a dense layer, deconv1, deconv2",
        encoder=(
            "encoder.conv*",
            "encoder.bn*|encoder.norm*|encoder.batchnorm*",
            "encoder.fc1|encoder.fc|encoder.fc*|encoder.linear*|encoder.dense|",
        ),
        heads=_heads("encoder."),
        decoder=(
            "decoder.fc*|decoder.fc|decoder.linear*|decoder.dense",
            _either("decoder.", _TRANSPOSED),
            "decoder.bn*|decoder.norm*|decoder.batchnorm*",
        ),
        settings=_CONV | {"before_reshape": "activation"},
    ),
    "conv_flat": Architecture(
        title="one class with conv1, conv2, fc1, fc_mu, fc_logvar, fc2, fc3, deconv1",
        encoder=("conv*|enc_conv*", "bn*|enc_bn*", "fc1|enc_fc|fc|"),
        heads=_heads(),
        decoder=(
            "fc*|decoder_fc*|decoder_fc|dec_fc|fc_decode|decoder_input",
            _either("", _TRANSPOSED + " dec_conv*"),
            "dec_bn*",
        ),
        settings=_CONV | {"before_reshape": "activation"},
    ),
    "autoencoder": Architecture(
        title="encoder and decoder as nn.Sequential: 784-256-128-64-32, or conv",
        encoder=("encoder.*",),
        decoder=("decoder.*",),
        kind="autoencoder",
    ),
    "autoencoder_layers": Architecture(
        title="an autoencoder with encoder.fc1, ..., decoder.fc1, ...; dense or conv",
        encoder=("encoder.conv*", "encoder.bn*", "encoder.fc*|encoder.linear*"),
        decoder=(
            "decoder.fc*|decoder.linear*",
            _either("decoder.", _TRANSPOSED) + "|",
            "decoder.bn*",
        ),
        kind="autoencoder",
    ),
}
