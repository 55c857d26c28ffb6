import pytest
import torch
from sklearn.cluster import KMeans as Reference
from torch import Tensor

from sae.dictionaries.kmeans import KMeans, KMeansConfig, kmeans_centres
from sae.errors import DictionaryError

D_IN, N = 8, 12


def blobs(n: int = 2000, spread: float = 0.05) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    centres = 3 * torch.randn(N, D_IN, generator=generator) + 1
    cluster = torch.randint(N, (n,), generator=generator)
    return centres[cluster] + spread * torch.randn(n, D_IN, generator=generator), centres


def fitted(d_sae: int = N) -> tuple[KMeans, Tensor]:
    x, _ = blobs(spread=1.0)
    dictionary = KMeans(KMeansConfig(d_sae=d_sae), D_IN)
    dictionary.initialise(x, torch.Generator().manual_seed(0))
    return dictionary, x


def centres_of(dictionary: KMeans) -> Tensor:
    return dictionary.W_dec * dictionary.lengths[:, None] + dictionary.b_dec


def test_every_vector_is_rebuilt_as_its_nearest_centre() -> None:
    dictionary, x = fitted()
    centres = centres_of(dictionary)
    nearest = (x[:, None] - centres).square().sum(2).argmin(1)
    codes = dictionary.encode(x)
    assert torch.equal(codes.indices.long(), nearest) and (codes.l0() == 1).all()
    torch.testing.assert_close(dictionary(x), centres[nearest])
    torch.testing.assert_close(codes.values, dictionary.lengths[nearest])


def test_centres_are_the_means_of_their_clusters_up_to_the_last_round() -> None:
    x, _ = blobs(300, spread=0.5)
    centres = kmeans_centres(x, N, torch.Generator().manual_seed(0))
    nearest = (x[:, None] - centres).square().sum(2).argmin(1)
    for j in range(N):
        torch.testing.assert_close(centres[j], x[nearest == j].mean(0))


def test_it_does_about_as_well_as_scikit_learn() -> None:
    x, _ = blobs(spread=1.0)
    inertia = []
    for seed in range(5):
        centres = kmeans_centres(x, N, torch.Generator().manual_seed(seed))
        inertia.append(float((x[:, None] - centres).square().sum(2).amin(1).sum()))
    reference = Reference(N, n_init=5, random_state=0).fit(x.numpy()).inertia_
    assert min(inertia) < 1.1 * reference


def test_clusters_that_lost_their_rows_move_to_where_the_error_is() -> None:
    x = torch.cat([torch.zeros(100, 2), torch.tensor([[50.0, 0.0], [0.0, 50.0]])])
    centres = kmeans_centres(x, 3, torch.Generator().manual_seed(0))
    found = {tuple(row) for row in centres.round().tolist()}
    assert found == {(0.0, 0.0), (50.0, 0.0), (0.0, 50.0)}


def test_one_cluster_is_the_mean() -> None:
    dictionary, x = fitted(1)
    torch.testing.assert_close(dictionary(x), x.mean(0).expand_as(x))


def test_more_clusters_than_vectors_and_transcoders_are_refused() -> None:
    with pytest.raises(DictionaryError, match="5 centres of 3 vectors"):
        kmeans_centres(torch.randn(3, 2), 5, torch.Generator())
    with pytest.raises(DictionaryError, match="kmeans: rebuilds what it reads"):
        KMeans(KMeansConfig(d_sae=4), D_IN, D_IN)
