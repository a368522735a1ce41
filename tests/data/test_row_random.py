"""Random rows: the same for any cut of the batch, and random."""

import numpy as np
import pytest
import tensorflow as tf

from rd_tf.data.sampling import bit_rows, uniform_rows

SEED = tf.constant([3, 4])


@pytest.mark.parametrize("count", [1, 3, 4, 90])
@pytest.mark.parametrize("draw", [uniform_rows, bit_rows])
def test_rows_are_the_same_however_the_batch_is_cut(draw, count):
    whole = draw(SEED, 0, 37, count).numpy()
    parts = [draw(SEED, first, last - first, count).numpy() for first, last in ((0, 5), (5, 5), (5, 36), (36, 37))]
    assert whole.shape == (37, count)
    np.testing.assert_array_equal(np.concatenate(parts), whole)


def test_numbers_are_uniform_and_do_not_repeat():
    drawn = uniform_rows(SEED, 0, 2000, 7).numpy()
    assert drawn.min() >= 0
    assert drawn.max() < 1
    assert abs(drawn.mean() - 0.5) < 0.01
    # 24 bits a number: some 6 pairs among 14,000 are equal by chance.
    assert len(np.unique(drawn)) > 13_970
    assert abs(np.corrcoef(drawn[:-1].ravel(), drawn[1:].ravel())[0, 1]) < 0.03


def test_every_bit_is_random():
    bits = np.unpackbits(bit_rows(SEED, 5, 2000, 3).numpy().view(np.uint8))
    shares = bits.reshape(-1, 32).mean(0)
    assert ((shares > 0.45) & (shares < 0.55)).all()


def test_the_seed_decides():
    assert (bit_rows(SEED, 0, 8, 3).numpy() != bit_rows(tf.constant([3, 5]), 0, 8, 3).numpy()).all()
