"""PyTorch programs with a VAE or an autoencoder, typed as tutorials print them.

Their forward passes call ``reparameterize(mu, logvar)``; `with_noise` fixes the noise.
"""

import contextlib

import torch
import torch.nn as nn
import torch.nn.functional as F

NOISE = None


@contextlib.contextmanager
def with_noise(eps):
    """The programs draw ``eps``."""
    global NOISE
    NOISE = eps
    try:
        yield
    finally:
        NOISE = None


def reparameterize(mu, logvar):
    std = torch.exp(0.5 * logvar)
    eps = torch.randn_like(std) if NOISE is None else NOISE
    return mu + eps * std


# 1. pytorch/examples, vae/main.py
class Examples(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1 = nn.Linear(784, 400)
        self.fc21 = nn.Linear(400, 20)
        self.fc22 = nn.Linear(400, 20)
        self.fc3 = nn.Linear(20, 400)
        self.fc4 = nn.Linear(400, 784)

    def encode(self, x):
        h1 = F.relu(self.fc1(x))
        return self.fc21(h1), self.fc22(h1)

    def decode(self, z):
        h3 = F.relu(self.fc3(z))
        return torch.sigmoid(self.fc4(h3))

    def forward(self, x):
        mu, logvar = self.encode(x.view(-1, 784))
        z = reparameterize(mu, logvar)
        return self.decode(z), mu, logvar


class VAE(nn.Module):
    """The class that joins an encoder and a decoder, the same in 2, 3, 4, 7 and 8."""

    def __init__(self, encoder, decoder):
        super().__init__()
        self.encoder = encoder
        self.decoder = decoder

    def forward(self, x):
        mu, logvar = self.encoder(x)
        z = reparameterize(mu, logvar)
        return self.decoder(z), mu, logvar


# 2. classes Encoder and Decoder
class Encoder2(nn.Module):
    def __init__(self, z_dim=20):
        super().__init__()
        self.fc1 = nn.Linear(784, 400)
        self.fc21 = nn.Linear(400, z_dim)
        self.fc22 = nn.Linear(400, z_dim)

    def forward(self, x):
        hidden = F.relu(self.fc1(x.view(-1, 784)))
        return self.fc21(hidden), self.fc22(hidden)


class Decoder2(nn.Module):
    def __init__(self, z_dim=20):
        super().__init__()
        self.fc1 = nn.Linear(z_dim, 400)
        self.fc2 = nn.Linear(400, 784)

    def forward(self, z):
        return torch.sigmoid(self.fc2(F.relu(self.fc1(z))))


# 3. convolutions (32, 64) and a dense layer of 256
class Encoder3(nn.Module):
    def __init__(self, latent_dim=16, kernel=4):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 32, kernel, stride=2, padding=1)
        self.conv2 = nn.Conv2d(32, 64, kernel, stride=2, padding=1)
        self.fc1 = nn.Linear(64 * 7 * 7, 256)
        self.fc_mu = nn.Linear(256, latent_dim)
        self.fc_logvar = nn.Linear(256, latent_dim)

    def forward(self, x):
        x = F.relu(self.conv1(x))
        x = F.relu(self.conv2(x))
        x = x.view(x.size(0), -1)
        x = F.relu(self.fc1(x))
        return self.fc_mu(x), self.fc_logvar(x)


class Decoder3(nn.Module):
    def __init__(self, latent_dim=16, kernel=4):
        super().__init__()
        self.fc1 = nn.Linear(latent_dim, 256)
        self.fc2 = nn.Linear(256, 64 * 7 * 7)
        more = {3: 1, 4: 0}[kernel]
        self.deconv1 = nn.ConvTranspose2d(
            64, 32, kernel, stride=2, padding=1, output_padding=more
        )
        self.deconv2 = nn.ConvTranspose2d(
            32, 1, kernel, stride=2, padding=1, output_padding=more
        )

    def forward(self, z):
        x = F.relu(self.fc1(z))
        x = F.relu(self.fc2(x))
        x = x.view(-1, 64, 7, 7)
        x = F.relu(self.deconv1(x))
        return torch.sigmoid(self.deconv2(x))


class Encoder3Mean(nn.Module):
    def __init__(self, latent_dim=16):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 32, 3, stride=2, padding=1)
        self.conv2 = nn.Conv2d(32, 64, 3, stride=2, padding=1)
        self.fc = nn.Linear(64 * 7 * 7, 256)
        self.fc_mean = nn.Linear(256, latent_dim)
        self.fc_log_var = nn.Linear(256, latent_dim)

    def forward(self, x):
        x = F.relu(self.conv1(x))
        x = F.relu(self.conv2(x))
        x = F.relu(self.fc(x.flatten(1)))
        return self.fc_mean(x), self.fc_log_var(x)


class Decoder3NoReLU(nn.Module):
    def __init__(self, latent_dim=16):
        super().__init__()
        self.fc = nn.Linear(latent_dim, 64 * 7 * 7)
        self.convT1 = nn.ConvTranspose2d(64, 32, 3, 2, 1, 1)
        self.convT2 = nn.ConvTranspose2d(32, 1, 3, 2, 1, 1)

    def forward(self, z):
        x = self.fc(z).view(-1, 64, 7, 7)
        x = F.relu(self.convT1(x))
        return torch.sigmoid(self.convT2(x))


# 4. 784-256-2
class Encoder4(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1 = nn.Linear(784, 256)
        self.fc_mean = nn.Linear(256, 2)
        self.fc_log_var = nn.Linear(256, 2)

    def forward(self, x):
        h = torch.relu(self.fc1(torch.flatten(x, 1)))
        return self.fc_mean(h), self.fc_log_var(h)


class Decoder4(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1 = nn.Linear(2, 256)
        self.fc_out = nn.Linear(256, 784)

    def forward(self, z):
        h = torch.relu(self.fc1(z))
        return torch.sigmoid(self.fc_out(h))


# 5. lists of layers
class Sequential5(nn.Module):
    def __init__(self, input_dim=784, latent_dim=16):
        super().__init__()
        self.encoder_layers = nn.Sequential(
            nn.Linear(input_dim, 512),
            nn.ReLU(),
            nn.Linear(512, 256),
            nn.ReLU(),
        )
        self.fc_mu = nn.Linear(256, latent_dim)
        self.fc_logvar = nn.Linear(256, latent_dim)
        self.decoder = nn.Sequential(
            nn.Linear(latent_dim, 256),
            nn.ReLU(),
            nn.Linear(256, 512),
            nn.ReLU(),
            nn.Linear(512, input_dim),
            nn.Sigmoid(),
        )

    def forward(self, x):
        h = self.encoder_layers(x.view(x.size(0), -1))
        mu, logvar = self.fc_mu(h), self.fc_logvar(h)
        return self.decoder(reparameterize(mu, logvar)), mu, logvar


# 6. convolutions with batch normalization
class Conv6(nn.Module):
    def __init__(self, latent_dim=32, bias=True, dense_norm=False, end=nn.Sigmoid):
        super().__init__()
        self.encoder_conv = nn.Sequential(
            nn.Conv2d(1, 32, 3, stride=2, padding=1, bias=bias),
            nn.BatchNorm2d(32),
            nn.LeakyReLU(0.2),
            nn.Conv2d(32, 64, 3, stride=2, padding=1, bias=bias),
            nn.BatchNorm2d(64),
            nn.LeakyReLU(0.2),
            nn.Conv2d(64, 128, 3, stride=2, padding=1, bias=bias),
            nn.BatchNorm2d(128),
            nn.LeakyReLU(0.2),
        )
        self.fc_mu = nn.Linear(128 * 4 * 4, latent_dim)
        self.fc_logvar = nn.Linear(128 * 4 * 4, latent_dim)
        self.decoder_fc = nn.Linear(latent_dim, 128 * 4 * 4)
        if dense_norm:
            self.decoder_fc = nn.Sequential(
                nn.Linear(latent_dim, 128 * 4 * 4),
                nn.BatchNorm1d(128 * 4 * 4),
                nn.LeakyReLU(0.2),
            )
        last = [] if end is None else [end()]
        self.decoder_conv = nn.Sequential(
            nn.ConvTranspose2d(128, 64, 3, stride=2, padding=1, bias=bias),
            nn.BatchNorm2d(64),
            nn.LeakyReLU(0.2),
            nn.ConvTranspose2d(
                64, 32, 3, stride=2, padding=1, output_padding=1, bias=bias
            ),
            nn.BatchNorm2d(32),
            nn.LeakyReLU(0.2),
            nn.ConvTranspose2d(32, 1, 3, stride=2, padding=1, output_padding=1),
            *last,
        )

    def forward(self, x):
        h = self.encoder_conv(x).flatten(1)
        mu, logvar = self.fc_mu(h), self.fc_logvar(h)
        z = reparameterize(mu, logvar)
        h = self.decoder_fc(z).view(-1, 128, 4, 4)
        return self.decoder_conv(h), mu, logvar


class Sequential6(nn.Module):
    """Linear, BatchNorm1d, ReLU."""

    def __init__(self, latent_dim=10):
        super().__init__()
        self.encoder_layers = nn.Sequential(
            nn.Linear(784, 256),
            nn.BatchNorm1d(256),
            nn.ReLU(),
            nn.Linear(256, 64),
            nn.BatchNorm1d(64),
            nn.ReLU(),
        )
        self.fc_mu = nn.Linear(64, latent_dim)
        self.fc_logvar = nn.Linear(64, latent_dim)
        self.decoder = nn.Sequential(
            nn.Linear(latent_dim, 64),
            nn.BatchNorm1d(64),
            nn.ReLU(),
            nn.Linear(64, 256),
            nn.BatchNorm1d(256),
            nn.ReLU(),
            nn.Linear(256, 784),
            nn.Sigmoid(),
        )

    def forward(self, x):
        h = self.encoder_layers(x.flatten(1))
        mu, logvar = self.fc_mu(h), self.fc_logvar(h)
        return self.decoder(reparameterize(mu, logvar)), mu, logvar


# 7. fc_mu and fc_logvar, fc1 and fc2
class Encoder7(nn.Module):
    def __init__(self, input_dim=784, hidden_dim=400, latent_dim=20):
        super().__init__()
        self.fc1 = nn.Linear(input_dim, hidden_dim)
        self.fc_mu = nn.Linear(hidden_dim, latent_dim)
        self.fc_logvar = nn.Linear(hidden_dim, latent_dim)

    def forward(self, x):
        h = F.relu(self.fc1(x.flatten(1)))
        return self.fc_mu(h), self.fc_logvar(h)


class Flat7(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1 = nn.Linear(784, 400)
        self.fc_mu = nn.Linear(400, 20)
        self.fc_logvar = nn.Linear(400, 20)
        self.fc2 = nn.Linear(20, 400)
        self.fc3 = nn.Linear(400, 784)

    def forward(self, x):
        h = F.relu(self.fc1(x.view(-1, 784)))
        mu, logvar = self.fc_mu(h), self.fc_logvar(h)
        z = reparameterize(mu, logvar)
        return torch.sigmoid(self.fc3(F.relu(self.fc2(z)))), mu, logvar


# 8. conv_layers in Encoder and Decoder
class Encoder8(nn.Module):
    def __init__(self, latent_dim=20):
        super().__init__()
        self.conv_layers = nn.Sequential(
            nn.Conv2d(1, 32, kernel_size=3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(32, 64, kernel_size=3, stride=2, padding=1),
            nn.ReLU(),
        )
        self.fc_mu = nn.Linear(64 * 7 * 7, latent_dim)
        self.fc_logvar = nn.Linear(64 * 7 * 7, latent_dim)

    def forward(self, x):
        h = self.conv_layers(x).view(x.size(0), -1)
        return self.fc_mu(h), self.fc_logvar(h)


class Decoder8(nn.Module):
    def __init__(self, latent_dim=20):
        super().__init__()
        self.fc = nn.Linear(latent_dim, 64 * 7 * 7)
        self.conv_layers = nn.Sequential(
            nn.ConvTranspose2d(64, 32, 3, stride=2, padding=1, output_padding=1),
            nn.ReLU(),
            nn.ConvTranspose2d(32, 1, 3, stride=2, padding=1, output_padding=1),
            nn.Sigmoid(),
        )

    def forward(self, z):
        return self.conv_layers(self.fc(z).view(-1, 64, 7, 7))


# 9. autoencoders
class Autoencoder9(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Linear(784, 256),
            nn.ReLU(),
            nn.Linear(256, 128),
            nn.ReLU(),
            nn.Linear(128, 64),
            nn.ReLU(),
            nn.Linear(64, 32),
        )
        self.decoder = nn.Sequential(
            nn.Linear(32, 64),
            nn.ReLU(),
            nn.Linear(64, 128),
            nn.ReLU(),
            nn.Linear(128, 256),
            nn.ReLU(),
            nn.Linear(256, 784),
            nn.Sigmoid(),
        )

    def forward(self, x):
        z = self.encoder(x.view(-1, 784))
        return self.decoder(z), z


class ConvAutoencoder9(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Conv2d(1, 16, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(16, 32, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(32 * 7 * 7, 64),
        )
        self.decoder = nn.Sequential(
            nn.Linear(64, 32 * 7 * 7),
            nn.ReLU(),
            nn.Unflatten(1, (32, 7, 7)),
            nn.ConvTranspose2d(32, 16, 3, stride=2, padding=1, output_padding=1),
            nn.ReLU(),
            nn.ConvTranspose2d(16, 1, 3, stride=2, padding=1, output_padding=1),
            nn.Sigmoid(),
        )

    def forward(self, x):
        z = self.encoder(x)
        return self.decoder(z), z


class FullyConvAutoencoder9(nn.Module):
    def __init__(self, last=()):
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Conv2d(1, 16, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(16, 4, 3, stride=2, padding=1),
            *last,
        )
        self.decoder = nn.Sequential(
            nn.ConvTranspose2d(4, 16, 3, stride=2, padding=1, output_padding=1),
            nn.ReLU(),
            nn.ConvTranspose2d(16, 1, 3, stride=2, padding=1, output_padding=1),
            nn.Sigmoid(),
        )

    def forward(self, x):
        z = self.encoder(x)
        return self.decoder(z), z


# The code is a feature map of one pixel.
class OnePixelAutoencoder9(FullyConvAutoencoder9):
    def __init__(self):
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Conv2d(1, 16, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(16, 32, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(32, 64, 7),
        )
        self.decoder = nn.Sequential(
            nn.ConvTranspose2d(64, 32, 7),
            nn.ReLU(),
            nn.ConvTranspose2d(32, 16, 3, stride=2, padding=1, output_padding=1),
            nn.ReLU(),
            nn.ConvTranspose2d(16, 1, 3, stride=2, padding=1, output_padding=1),
            nn.Sigmoid(),
        )


# The losses that the programs print, sums over the batch.
def bce_loss(recon_x, x):
    return F.binary_cross_entropy(recon_x.reshape(x.shape), x, reduction="sum")


def bce_with_logits_loss(recon_x, x):
    return F.binary_cross_entropy_with_logits(
        recon_x.reshape(x.shape), x, reduction="sum"
    )


def mse_loss(recon_x, x):
    return F.mse_loss(recon_x.reshape(x.shape), x, reduction="sum")


def kl_loss(mu, logvar):
    return -0.5 * torch.sum(1 + logvar - mu.pow(2) - logvar.exp())
