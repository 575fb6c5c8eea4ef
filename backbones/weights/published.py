"""Published ImageNet weights of MobileNetV2 that have a name here.

`torchvision`, `torchvision_v1`; `timm/mobilenetv2_050`, ...; `d-li14/mobilenetv2_0.5`, ...; `tonylins`;
`keras/mobilenet_v2_0.5_160`, ...; `slim/mobilenet_v2_0.5_160`, ...; `transformers/mobilenet_v2_1.0_224`, ...

sha256 digits are those in the publishers' own file names, which is all that they publish. A record without
any says that the publisher gives none; nothing is checked then. Scores are the publishers', in percent.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from falconet.backbones.weights.layouts import LAYOUTS, WeightFacts

TORCHVISION_URL = 'https://download.pytorch.org/models/'
TIMM_URL = 'https://github.com/rwightman/pytorch-image-models/releases/download/v0.1-weights/'
D_LI14_URL = 'https://github.com/d-li14/mobilenetv2.pytorch/raw/master/pretrained/'
TONYLINS_URL = 'https://www.dropbox.com/s/47tyzpofuuyyv1b/'
KERAS_URL = 'https://storage.googleapis.com/tensorflow/keras-applications/mobilenet_v2/'
SLIM_URL = 'https://storage.googleapis.com/mobilenet_v2/checkpoints/'
TRANSFORMERS_URL = 'https://huggingface.co/google/'

# Top-1 of slim's 22 networks: width -> resolution -> percent (slim/nets/mobilenet/README.md).
SLIM_TOP1 = {
    1.4: {224: 75.0},
    1.3: {224: 74.4},
    1.0: {224: 71.8, 192: 70.7, 160: 68.8, 128: 65.3, 96: 60.3},
    0.75: {224: 69.8, 192: 68.7, 160: 66.4, 128: 63.2, 96: 58.8},
    0.5: {224: 65.4, 192: 63.9, 160: 61.0, 128: 57.7, 96: 51.2},
    0.35: {224: 60.3, 192: 58.2, 160: 55.7, 128: 50.8, 96: 45.5},
}


@dataclass(frozen=True)
class PublishedWeights:
    """Published weights that have a name here.

    Attributes:
        url: where the file is.
        layout: name of its layout in `backbones.weights.layouts.LAYOUTS`.
        top1: published ImageNet top-1, in percent; None where the publisher gives none.
        options: of `MobileNetV2`: the network the weights belong to.
        sha256: first digits of the file's sha256; None where the publisher gives none.
        resolution: side of the pictures it was trained for, in pixels.
        resize: short side that pictures are scaled to before the crop of `resolution`; None where it is
            that over 0.875, which most publishers evaluate with.
        num_classes: 1000, or 1001 with a background class before them.
        file: name in the cache; by default the url's own.
        needs: what has to be done to the download before it can be read; '' for nothing.
    """

    url: str
    layout: str
    top1: float | None
    options: Mapping[str, Any] = field(default_factory=dict)
    sha256: str | None = None
    resolution: int = 224
    resize: int | None = None
    num_classes: int = 1000
    file: str = ''
    needs: str = ''

    @property
    def facts(self) -> WeightFacts:
        """Padding, batch-norm epsilon and normalisation that the weights are right with."""
        return LAYOUTS[self.layout].facts

    @property
    def file_name(self) -> str:
        """Name of the file in the cache."""
        return self.file or self.url.rsplit('/', 1)[-1].split('?')[0]


def _torchvision() -> dict[str, PublishedWeights]:
    return {
        'torchvision': PublishedWeights(
            TORCHVISION_URL + 'mobilenet_v2-7ebf99e0.pth',
            'torchvision',
            72.154,
            sha256='7ebf99e0',
            resize=232,
        ),
        'torchvision_v1': PublishedWeights(
            TORCHVISION_URL + 'mobilenet_v2-b0353104.pth', 'torchvision', 71.878, sha256='b0353104'
        ),
    }


def _timm() -> dict[str, PublishedWeights]:
    # name, file (timm's registry), top-1 (timm's results/results-imagenet.csv), options of MobileNetV2
    fixed = {'stem_channels': 32, 'last_channels': 1280}
    rows = (
        ('050', 'mobilenetv2_050-3d30d450', 65.950, {'width': 0.5}),
        ('100', 'mobilenetv2_100_ra-b33bc2c4', 72.976, {'width': 1.0}),
        ('110d', 'mobilenetv2_110d_ra-77090ade', 75.056, {'width': 1.1, 'depth': 1.2, **fixed}),
        ('120d', 'mobilenetv2_120d_ra-5987e2ed', 77.302, {'width': 1.2, 'depth': 1.4, **fixed}),
        ('140', 'mobilenetv2_140_ra-21a4e913', 76.520, {'width': 1.4}),
    )
    return {
        f'timm/mobilenetv2_{name}': PublishedWeights(
            f'{TIMM_URL}{file}.pth', 'timm', top1, options, sha256=file[-8:]
        )
        for name, file, top1, options in rows
    }


def _d_li14() -> dict[str, PublishedWeights]:
    # name, file, top-1 (the repository's README), width, resolution
    rows = (
        ('mobilenetv2', 'mobilenetv2-c5e733a8', 72.834, 1.0, 224),
        ('mobilenetv2_1.0', 'mobilenetv2_1.0-0c6065bc', 72.192, 1.0, 224),
        ('mobilenetv2_0.75', 'mobilenetv2_0.75-dace9791', 69.952, 0.75, 224),
        ('mobilenetv2_0.5', 'mobilenetv2_0.5-eaa6f9ad', 64.592, 0.5, 224),
        ('mobilenetv2_0.35', 'mobilenetv2_0.35-b2e15951', 60.092, 0.35, 224),
        ('mobilenetv2_0.25', 'mobilenetv2_0.25-b61d2159', 52.352, 0.25, 224),
        ('mobilenetv2_0.1', 'mobilenetv2_0.1-7d1d638a', 34.896, 0.1, 224),
        ('mobilenetv2_192x192', 'mobilenetv2_192x192-e423d99e', 71.076, 1.0, 192),
        ('mobilenetv2_160x160', 'mobilenetv2_160x160-64dc7fa1', 69.504, 1.0, 160),
        ('mobilenetv2_128x128', 'mobilenetv2_128x128-fd66a69d', 66.740, 1.0, 128),
        ('mobilenetv2_96x96', 'mobilenetv2_96x96-ff0e83d8', 62.696, 1.0, 96),
    )
    return {
        f'd-li14/{name}': PublishedWeights(
            f'{D_LI14_URL}{file}.pth',
            'd-li14',
            top1,
            # The author's narrowest network rounds channels to multiples of 4.
            {'width': width, 'channel_divisor': 4} if width == 0.1 else {'width': width},
            sha256=file[-8:],
            resolution=resolution,
        )
        for name, file, top1, width, resolution in rows
    }


def _tonylins() -> dict[str, PublishedWeights]:
    # The file's name ends in seven digits of an unstated hash, so none is checked; nor does the
    # repository's README give a score for this file.
    url = TONYLINS_URL + 'mobilenetv2_1.0-f2a8633.pth.tar?dl=1'
    return {'tonylins/mobilenetv2_1.0-f2a8633': PublishedWeights(url, 'tonylins', None, {'width': 1.0})}


def _tensorflow() -> dict[str, PublishedWeights]:
    found = {}
    for width, resolutions in SLIM_TOP1.items():
        for resolution, top1 in resolutions.items():
            stem = (
                f'mobilenet_v2_{width:g}_{resolution}' if width != 1.0 else f'mobilenet_v2_1.0_{resolution}'
            )
            found[f'keras/{stem}'] = PublishedWeights(
                f'{KERAS_URL}mobilenet_v2_weights_tf_dim_ordering_tf_kernels_{width}_{resolution}.h5',
                'keras',
                71.336 if (width, resolution) == (1.0, 224) else None,
                {'width': width},
                resolution=resolution,
            )
            found[f'slim/{stem}'] = PublishedWeights(
                f'{SLIM_URL}{stem}.tgz',
                'slim',
                top1,
                {'width': width},
                resolution=resolution,
                num_classes=1001,
                needs=f'unpack it (tar xzf {stem}.tgz) and pass the checkpoint in it, {stem}.ckpt',
            )
    return found


def _transformers() -> dict[str, PublishedWeights]:
    return {
        f'transformers/mobilenet_v2_{width}_{resolution}': PublishedWeights(
            f'{TRANSFORMERS_URL}mobilenet_v2_{width}_{resolution}/resolve/main/pytorch_model.bin',
            'transformers',
            None,
            {'width': width},
            resolution=resolution,
            num_classes=1001,
            file=f'google_mobilenet_v2_{width}_{resolution}.bin',
        )
        for width, resolution in ((1.4, 224), (1.0, 224), (0.75, 160), (0.35, 96))
    }


NAMED: dict[str, PublishedWeights] = {
    **_torchvision(),
    **_timm(),
    **_d_li14(),
    **_tonylins(),
    **_tensorflow(),
    **_transformers(),
}
